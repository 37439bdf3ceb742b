#pragma once

#include <cstdint>

#include <cuda.h>

#include "optimized/device/tensor_map.h"
#include "optimized/linear4bit/linear4bit_problem.h"

namespace qshard::optimized {

/// The packed codes of a weight in boxes of `box_bytes`, 32 or 64, of each of `box_rows` rows; the swizzle is as wide
/// as a box.
inline CUtensorMap code_map(const Linear4bitShape& shape, const std::uint8_t* codes, int box_bytes, int box_rows) {
  const std::int64_t row_bytes = shape.in_features / 2;
  return byte_tensor_map(codes, {row_bytes, shape.out_features}, {row_bytes}, {box_bytes, box_rows},
                         box_bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_32B);
}

}  // namespace qshard::optimized
