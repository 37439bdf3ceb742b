#pragma once

#include <cstdint>

#include "core/tensor/dtype.h"

namespace qshard {

/// How AdamW's two moments are kept between steps. blockwise_8bit: codes of a dynamic map and one absmax for each
/// kMomentBlocksize elements of a parameter, bitsandbytes' 8-bit AdamW.
enum class MomentFormat : std::uint8_t { lora_dtype, float32, bfloat16, blockwise_8bit };

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
  MomentFormat moments = MomentFormat::lora_dtype;
};

/// Consecutive elements of one parameter that share an absmax. The last block of a parameter may be shorter.
inline constexpr std::int64_t kMomentBlocksize = 256;

/// The dtype of an element of either moment; u8 stands for 8-bit codes.
constexpr DType moment_dtype(MomentFormat format, DType lora_dtype) {
  switch (format) {
    case MomentFormat::float32:
      return DType::f32;
    case MomentFormat::bfloat16:
      return DType::bf16;
    case MomentFormat::blockwise_8bit:
      return DType::u8;
    case MomentFormat::lora_dtype:
      break;
  }
  return lora_dtype;
}

}  // namespace qshard
