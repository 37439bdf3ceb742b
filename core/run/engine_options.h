#pragma once

#include <cstdint>

#include "core/model/lora_options.h"
#include "core/model/quantization_options.h"
#include "core/sharding/sharding_strategy.h"
#include "core/tensor/dtype.h"

namespace qshard {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
};

/// Everything a TrainingEngine is made from, besides the checkpoint.
struct EngineOptions {
  int world_size = 1;
  ShardingStrategy sharding = ShardingStrategy::full_shard;
  QuantizationOptions quantization;
  LoraOptions lora;
  AdamWOptions optimizer;
  double max_grad_norm = 1.0;          // 0: no clipping
  DType dtype = DType::bf16;           // of everything that is not 4-bit, LoRA and optimizer state included
  DType compute_dtype = DType::f32;    // each operation's result is rounded to it
  bool gradient_checkpointing = true;  // keep each layer's input only and run its forward pass again
  std::uint64_t seed = 42;             // LoRA initialization and dropout
};

}  // namespace qshard
