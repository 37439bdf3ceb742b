#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/element_vector.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/sum.h"
#include "optimized/team_reduce.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;
constexpr int kFinalThreads = 1024;
constexpr int kVectorsInFlight = 4;

__device__ __forceinline__ double square(double value) {
  return value * value;
}

/// out_add[0] += the sum of `values`, by one thread block: each thread its own stride, then a tree.
template <typename T>
__global__ void __launch_bounds__(kFinalThreads) sum_kernel(const T* values, std::int64_t count, double* out_add) {
  begin_early_kernel();
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kFinalThreads) sum += static_cast<double>(values[i]);
  sum = team_reduce<kFinalThreads>(sum, Sum{});
  if (threadIdx.x == 0) out_add[0] += sum;
}

/// partials[b] = the sum of thread block b's squares: vectors with a stride of the whole grid, and in the first thread
/// block the elements after the last whole vector.
template <int kCount>
__global__ void __launch_bounds__(kThreads) square_kernel(const float* values, std::int64_t count, double* partials) {
  begin_early_kernel();
  constexpr std::int64_t kStride = std::int64_t{kSumPartials} * kThreads;
  const std::int64_t vectors = count / kCount;
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  double sums[kCount] = {};
#pragma unroll kVectorsInFlight
  for (std::int64_t i = thread; i < vectors; i += kStride) {
    const ElementVector<float, kCount> vector = vector_at<kCount>(values, i);
#pragma unroll
    for (int e = 0; e < kCount; ++e) sums[e] += square(vector.element[e]);
  }
  double sum = 0;
#pragma unroll
  for (int e = 0; e < kCount; ++e) sum += sums[e];
  if (vectors * kCount + thread < count) sum += square(values[vectors * kCount + thread]);
  sum = team_reduce<kThreads>(sum, Sum{});
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

}  // namespace

void sum_losses(const float* losses, std::int64_t count, double* out_add, cudaStream_t stream) {
  check_at_least(count, 0, "the number of losses");
  if (count == 0) return;
  check_pointer(losses, sizeof(*losses), "the losses");
  check_pointer(out_add, sizeof(*out_add), "the sum of the losses");
  launch_early(sum_kernel<float>, dim3(1), kFinalThreads, 0, stream, losses, count, out_add);
}

void sum_squares(const float* values, std::int64_t count, double* partials, double* out_add, cudaStream_t stream) {
  check_at_least(count, 0, "the number of values");
  if (count == 0) return;
  check_pointer(values, sizeof(*values), "the values to square");
  check_pointer(partials, sizeof(*partials), "the partial sums of squares");
  check_pointer(out_add, sizeof(*out_add), "the sum of squares");
  const bool wide = fits_wide_access(DType::f32, {values}, {});
  const auto kernel = wide ? square_kernel<kAccessElements<float>> : square_kernel<1>;
  launch_early(kernel, dim3(kSumPartials), kThreads, 0, stream, values, count, partials);
  launch_early(sum_kernel<double>, dim3(1), kFinalThreads, 0, stream, partials, kSumPartials, out_add);
}

}  // namespace qshard::optimized
