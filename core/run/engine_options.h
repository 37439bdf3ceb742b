#pragma once

#include <cstdint>

#include "core/model/lora_options.h"
#include "core/model/quantization_options.h"
#include "core/run/adamw_options.h"
#include "core/sharding/sharding_strategy.h"
#include "core/sharding/transport.h"
#include "core/tensor/dtype.h"

namespace qshard {

/// A way to save memory that costs time. Results have the same bits with it and without.
enum class MemorySaving : std::uint8_t {
  automatic,  // as far as the memory makes it necessary
  always,
  never,
};

/// Everything a TrainingEngine is made from, besides the checkpoint.
struct EngineOptions {
  int world_size = 1;
  ShardingStrategy sharding = ShardingStrategy::full_shard;
  int shard_group = 0;                         // ranks of a group under HYBRID_SHARD
  Transport transport = Transport::automatic;  // on GPUs
  bool offload = false;                        // on GPUs: frozen shards stay in host memory, each there once
  QuantizationOptions quantization;
  LoraOptions lora;
  AdamWOptions optimizer;
  double max_grad_norm = 1.0;        // 0: no clipping
  DType dtype = DType::bf16;         // of everything that is not 4-bit, LoRA included
  DType compute_dtype = DType::f32;  // each operation's result is rounded to it
  // Keep a layer's input only and run its forward pass again; on GPUs but for the last layer, where that is free. The
  // reference does so unless it is `never`.
  MemorySaving gradient_checkpointing = MemorySaving::automatic;
  // Let the layers' inputs wait for the backward pass in host memory. Nothing to the reference.
  MemorySaving activation_offloading = MemorySaving::automatic;
  std::int64_t memory_budget = 0;  // bytes of a GPU that a rank may use, context included; 0: what is free
  std::uint64_t seed = 42;         // LoRA initialization and dropout
};

}  // namespace qshard
