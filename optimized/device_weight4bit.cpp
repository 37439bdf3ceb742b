#include "optimized/device_weight4bit.h"

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

void check_weight(const DeviceWeight4bit& weight) {
  check_blocksize(weight.blocksize);
  check_at_least(weight.elements, 1, "the number of elements of a 4-bit weight");
  check_pointer(weight.codes, 16, "the weight's packed codes");
  if (!weight.nested()) {
    check_pointer(weight.absmax, 16, "the weight's absmax");
    return;
  }
  if (weight.absmax_codes == nullptr) fail_input("the weight has neither absmax nor nested absmax codes");
  check_pointer(weight.nested_absmax, alignof(float), "the weight's nested absmax");
  check_pointer(weight.nested_map, 16, "the weight's nested map");
  check_pointer(weight.offset, alignof(float), "the weight's nested offset");
}

}  // namespace qshard::optimized
