#include "core/tensor/weight4bit.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/dropout.cuh"
#include "optimized/dropout.h"
#include "optimized/element_vector.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ std::uint32_t word_of(const uint4& words, std::uint32_t feature) {
  const std::uint32_t in_order[4] = {words.x, words.y, words.z, words.w};
  return in_order[feature % 4];
}

/// Thread block (t, b) has kThreads vectors of token t.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(const DropoutKey mask, const TokenRows rows, std::uint32_t features, const T* x,
                   std::int64_t x_stride, T* out, std::int64_t out_stride) {
  begin_early_kernel();
  const std::uint32_t first = (blockIdx.y * kThreads + threadIdx.x) * kCount;
  if (first >= features) return;
  const std::int64_t token = blockIdx.x;
  const std::int32_t position = rows.positions[token];
  const std::uint32_t row_id = rows.row_ids[rows.row_of[token]];
  float values[kCount];
  to_floats(vector_at<kCount>(x + token * x_stride + first, 0), values);
  uint4 words;
#pragma unroll
  for (int e = 0; e < kCount; ++e) {
    if (e % 4 == 0) words = dropout_words(mask, position, row_id, first + e);
    values[e] = drop_or_scale(mask, word_of(words, first + e), values[e]);
  }
  vector_at<kCount>(out + token * out_stride + first, 0) = rounded<T>(values);
}

}  // namespace

void dropout(const DropoutMask& mask, const TokenRows& rows, std::int64_t features, DType dtype, const void* x,
             std::int64_t x_stride, void* out, std::int64_t out_stride, cudaStream_t stream) {
  check_dropout(mask, features);
  check_floating(dtype, "the dtype of dropout");
  check_at_least(features, 1, "the number of features of dropout");
  check_at_least(x_stride, features, "the stride of dropout's x");
  check_at_least(out_stride, features, "the stride of dropout's output");
  check_at_least(rows.tokens, 0, "the number of tokens");
  if (rows.tokens == 0) return;
  check_pointer(rows.positions, sizeof(*rows.positions), "the positions of dropout's tokens");
  check_pointer(rows.row_of, sizeof(*rows.row_of), "the rows of dropout's tokens");
  check_pointer(rows.row_ids, sizeof(*rows.row_ids), "the row ids of dropout");
  check_pointer(x, size_of(dtype), "dropout's x");
  check_pointer(out, size_of(dtype), "dropout's output");
  const bool wide = fits_wide_access(dtype, {x, out}, {features, x_stride, out_stride});
  with_vectors(dtype, wide, [&]<typename T, int kCount>() {
    const dim3 grid(rows.tokens, block_count(features, kThreads * kCount));
    launch_early(dropout_kernel<T, kCount>, grid, kThreads, 0, stream, DropoutKey(mask), rows,
                 static_cast<std::uint32_t>(features), static_cast<const T*>(x), x_stride, static_cast<T*>(out),
                 out_stride);
  });
}

}  // namespace qshard::optimized
