#include "optimized/dropout_masks.h"

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

void check_dropout_masks(const DropoutMask& common, std::span<const DropoutMaskBits> masks) {
  if (common.probability == 0) fail_input("lora_dropout is 0, which needs no mask");
  if (masks.size() > static_cast<std::size_t>(kMostDropoutMasks)) {
    fail_input("{} dropout masks are asked for at once, but at most {} can be made", masks.size(), kMostDropoutMasks);
  }
  DropoutMask mask = common;
  for (const auto& [projection, features, bits] : masks) {
    mask.projection = projection;
    check_dropout(mask, features);
    check_at_least(features, 1, "the number of features of a dropout mask");
    check_pointer(bits, 16, "a dropout mask");
  }
}

}  // namespace qshard::optimized
