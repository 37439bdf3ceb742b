#include "core/tensor/weight4bit.h"

#include "correctness/expect_error.h"

namespace qshard {
namespace {

TEST(Weight4bit, StorageHoldsThePackedBytesWholeOrIsRefused) {
  for (const std::int64_t elements : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16}) {
    for (const DType storage : {DType::u8, DType::f16, DType::bf16, DType::f32}) {
      const auto itemsize = static_cast<std::int64_t>(size_of(storage));
      const std::int64_t bytes = (elements + 1) / 2;
      if (bytes % itemsize == 0) {
        EXPECT_EQ(storage_shape(elements, storage, "layer.weight"), (Shape{bytes / itemsize, 1}));
      } else {
        expect_bad_input({"layer.weight", torch_name(storage), "use uint8"},
                         [&] { storage_shape(elements, storage, "layer.weight"); });
      }
    }
  }
}

}  // namespace
}  // namespace qshard
