#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/codebook.h"
#include "core/dtype.h"

namespace qshard {

/// FSDP's sharding strategies. FULL_SHARD gathers a unit's parameters for its forward pass and again for its backward
/// pass; SHARD_GRAD_OP keeps them in between; NO_SHARD replicates everything and all-reduces the gradients.
enum class ShardingStrategy : std::uint8_t { full_shard, shard_grad_op, no_shard };

/// "FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD".
std::string_view to_string(ShardingStrategy strategy);
ShardingStrategy parse_sharding_strategy(std::string_view name, std::string_view where);

/// How the frozen linear layers are held. A checkpoint that is already quantized keeps its own values.
struct QuantizationOptions {
  bool load_in_4bit = true;
  QuantType quant_type = QuantType::nf4;
  int blocksize = 64;
  bool double_quant = true;
  DType quant_storage = DType::u8;
};

struct LoraOptions {
  int r = 16;
  double alpha = 32;
  double dropout = 0.0;
  std::vector<std::string> target_modules{"all-linear"};  // all-linear leaves the output head out
};

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
