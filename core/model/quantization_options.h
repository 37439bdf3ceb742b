#pragma once

#include "core/tensor/codebook.h"
#include "core/tensor/dtype.h"

namespace qshard {

/// How a weight is quantized, everywhere: in a run, by `quantize`, in config.json. A checkpoint that is already
/// quantized keeps its own values.
struct QuantizationOptions {
  bool load_in_4bit = true;  // a run holds its frozen linear layers so; whoever quantizes does not ask
  QuantType quant_type = QuantType::nf4;
  int blocksize = 64;               // elements that share one absmax
  bool double_quant = true;         // absmax itself is quantized to 8 bits
  DType quant_storage = DType::u8;  // the dtype in which packed bytes are held and moved
};

}  // namespace qshard
