#include "optimized/dropout.h"

#include "core/base/error.h"

namespace qshard::optimized {

void check_dropout(const DropoutMask& mask, std::int64_t features) {
  if (!(mask.probability >= 0 && mask.probability < 1)) {
    fail_input("lora_dropout is {}; give a probability of at least 0 and below 1", mask.probability);
  }
  if (mask.layer >= 4096 || mask.projection >= 16 || features > (1 << 18)) {
    fail_input(
        "layer {}, projection {} with {} input features has no place in the counter of the dropout mask, which "
        "has room for 4096 layers, 16 projections and 262144 features",
        mask.layer, mask.projection, features);
  }
}

}  // namespace qshard::optimized
