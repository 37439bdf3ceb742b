#pragma once

#include <cstdint>
#include <initializer_list>

#include <cuda.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// Bytes of device memory as a tensor, for the tensor memory accelerator of Hopper GPUs: `sizes` from the innermost
/// dimension outwards, `strides` in bytes of all but the innermost, and the `box` that one copy takes. `base` and the
/// strides are multiples of 16; what a box has outside of the tensor is read as zeros. Throws Error(rank_failed) when
/// the driver refuses.
CUtensorMap byte_tensor_map(const std::uint8_t* base, std::initializer_list<std::int64_t> sizes,
                            std::initializer_list<std::int64_t> strides, std::initializer_list<int> box,
                            CUtensorMapSwizzle swizzle);

/// The same for f16 or bf16 elements, everything counted in elements, for copies that calculate.
CUtensorMap element_tensor_map(DType dtype, void* base, std::initializer_list<std::int64_t> sizes,
                               std::initializer_list<std::int64_t> strides, std::initializer_list<int> box,
                               CUtensorMapSwizzle swizzle);

}  // namespace qshard::optimized
