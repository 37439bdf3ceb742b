#include "optimized/device/tensor_map.h"

#include <algorithm>
#include <array>

#include "core/base/error.h"
#include "optimized/device/driver_function.h"

namespace qshard::optimized {

namespace {

constexpr std::size_t kMostDimensions = 5;

/// Everything in elements of `element` bytes.
CUtensorMap encode_map(CUtensorMapDataType type, std::int64_t element, void* base,
                       std::initializer_list<std::int64_t> sizes, std::initializer_list<std::int64_t> strides,
                       std::initializer_list<int> box, CUtensorMapSwizzle swizzle) {
  static const auto encode = driver_function<decltype(&cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled", 12000);
  std::array<cuuint64_t, kMostDimensions> size{};
  std::array<cuuint64_t, kMostDimensions> stride{};
  std::array<cuuint32_t, kMostDimensions> extent{};
  std::array<cuuint32_t, kMostDimensions> element_stride{};
  std::ranges::copy(sizes, size.begin());
  std::ranges::transform(strides, stride.begin(), [element](std::int64_t each) { return each * element; });
  std::ranges::copy(box, extent.begin());
  element_stride.fill(1);
  CUtensorMap map{};
  const CUresult result = encode(&map, type, static_cast<cuuint32_t>(sizes.size()), base, size.data(), stride.data(),
                                 extent.data(), element_stride.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) fail(ExitCode::rank_failed, "cuTensorMapEncodeTiled: error {}", static_cast<int>(result));
  return map;
}

}  // namespace

CUtensorMap byte_tensor_map(const std::uint8_t* base, std::initializer_list<std::int64_t> sizes,
                            std::initializer_list<std::int64_t> strides, std::initializer_list<int> box,
                            CUtensorMapSwizzle swizzle) {
  return encode_map(CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, const_cast<std::uint8_t*>(base), sizes, strides, box, swizzle);
}

CUtensorMap element_tensor_map(DType dtype, void* base, std::initializer_list<std::int64_t> sizes,
                               std::initializer_list<std::int64_t> strides, std::initializer_list<int> box,
                               CUtensorMapSwizzle swizzle) {
  const bool is_bf16 = dtype == DType::bf16;
  return encode_map(is_bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, base, sizes,
                    strides, box, swizzle);
}

}  // namespace qshard::optimized
