#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/dtype.h"
#include "optimized/device_weight4bit.h"

namespace qshard::optimized {

/// A rectangle of a weight whose rows have `row_elements` elements.
struct WeightSlice {
  std::int64_t row_elements = 0;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  std::int64_t first_column = 0;  // a multiple of 256, as is `columns` unless the slice is of whole rows
  std::int64_t columns = 0;

  [[nodiscard]] std::int64_t elements() const { return rows * columns; }
};

/// Slices are cut at multiples of this many elements.
inline constexpr std::int64_t kSliceGranularity = 256;

/// dequantize() for a slice, to the same bits: out [slice.rows, slice.columns] without gaps, in f16 or bf16, aligned to
/// 16 bytes. slice.elements() and the slice's first element are multiples of kSliceGranularity. The caller has checked
/// the weight; the slice lies inside it. One launch on `stream`. Throws Error(rank_failed) when the launch fails.
void dequantize_slice(const DeviceWeight4bit& weight, const WeightSlice& slice, DType dtype, void* out,
                      cudaStream_t stream);

/// The same by `multiprocessors` (even) multiprocessors of a Hopper GPU only, each wholly taken while it lasts, in
/// neighbouring pairs: so that a matrix product whose thread blocks run in pairs keeps all the others. One of them
/// writes 54 GB/s alone on an H200, as fast as a multiprocessor can write.
void dequantize_beside(const DeviceWeight4bit& weight, const WeightSlice& slice, DType dtype, void* out,
                       int multiprocessors, cudaStream_t stream);

}  // namespace qshard::optimized
