#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/launch/rank_link.h"
#include "core/sharding/transport.h"
#include "core/tensor/dtype.h"

namespace qshard::bench {

/// A step of FSDP-QLoRA on random weights of a model's shape: NF4 in nested blocks of 64, adapters on all linear layers
/// with alpha 16, AdamW, gradients clipped at 0.3. Words as the program's options have them.
struct StepOptions {
  std::string model = "llama-2-70b";
  std::int64_t layers = 8;  // 0: all of the model
  std::int64_t length = 2048;
  std::int64_t rows = 1;
  int r = 64;
  double dropout = 0.1;
  std::string checkpointing = "on";
  std::string offloading = "auto";
  std::string sharding = "FULL_SHARD";
  std::string dtype = "bfloat16";
  DType storage = DType::bf16;  // of the 4-bit codes
  int shard_group = 0;
  std::string transport = "peer";
  bool offload = false;
  double budget_gib = 0;
  int steps = 8;
  int accumulation = 1;
  bool hash = false;
  bool idle = false;     // record when the GPU works, by CUPTI
  bool kernels = false;  // and what it does
  std::string moments = "bf16";
};

/// Runs the steps as one rank. The line of rank 0: options, seconds of each step and their median without the first
/// two, losses, memory, with `kernels` the microseconds of a step by kernel; null on the other ranks. Throws as the
/// engine, and Error(bad_input) for words that are not known.
nlohmann::json measure_step(const StepOptions& options, RankLink& link);

/// Of "peer", "nccl" or "host"; throws Error(bad_input) for anything else.
Transport transport_of(const std::string& name);

/// Of all but the first two, which warm up.
double median_of(const std::vector<double>& values);

/// "NVIDIA H200": of the current device.
std::string device_name();

/// What is used of the current device's memory, by whomever.
std::int64_t used_bytes();

}  // namespace qshard::bench
