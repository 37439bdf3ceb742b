#pragma once

#include "core/tensor/codebook.h"
#include "core/tensor/dtype.h"

namespace qshard {

/// How the frozen linear layers are held. A checkpoint that is already quantized keeps its own values.
struct QuantizationOptions {
  bool load_in_4bit = true;
  QuantType quant_type = QuantType::nf4;
  int blocksize = 64;
  bool double_quant = true;
  DType quant_storage = DType::u8;
};

}  // namespace qshard
