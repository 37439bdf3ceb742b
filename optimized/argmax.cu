#include <cmath>
#include <limits>

#include "core/tensor/weight4bit.h"
#include "optimized/argmax.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/element_vector.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/team_reduce.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 1024;

/// A value and where it is, as one number that is larger for larger values, and for the first of equal ones. All ones
/// stand for a value that is not finite; the value itself must be.
__device__ __forceinline__ unsigned long long make_candidate(float value, std::int64_t index) {
  const float positive_zero = value + 0.0F;  // -0 equals 0
  const std::uint32_t bits = __float_as_uint(positive_zero);
  const std::uint32_t ordered = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return static_cast<unsigned long long>(ordered) << 32 | (0xFFFFFFFFU - static_cast<std::uint32_t>(index));
}

struct Largest {
  __device__ __forceinline__ unsigned long long operator()(unsigned long long a, unsigned long long b) const {
    return a > b ? a : b;
  }
};

/// A thread block has a row.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) argmax_kernel(std::int64_t count, const T* values, std::int32_t* out) {
  begin_early_kernel();
  const T* row = values + blockIdx.x * count;
  float largest = -INFINITY;
  std::int64_t place = -1;
  bool finite = true;
#pragma unroll 4
  for (std::int64_t i = threadIdx.x; i < count / kCount; i += kThreads) {
    float own[kCount];
    to_floats(vector_at<kCount>(row, i), own);
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      finite = finite && isfinite(own[e]);
      if (!(own[e] > largest)) continue;  // of equal values the first
      largest = own[e];
      place = i * kCount + e;
    }
  }
  unsigned long long best = !finite ? ~0ULL : place < 0 ? 0ULL : make_candidate(largest, place);
  best = team_reduce<kThreads>(best, Largest{});
  if (threadIdx.x != 0) return;
  out[blockIdx.x] =
      best == ~0ULL ? kNotFinite : static_cast<std::int32_t>(0xFFFFFFFFU - static_cast<std::uint32_t>(best));
}

}  // namespace

void argmax(std::int64_t rows, std::int64_t count, DType dtype, const void* values, std::int32_t* out,
            cudaStream_t stream) {
  check_floating(dtype, "the dtype of what the largest is looked for in");
  check_at_least(rows, 0, "the number of rows of an argmax");
  check_at_least(count, 1, "the number of values of an argmax");
  check_at_most(count, std::numeric_limits<std::int32_t>::max(), "the number of values of an argmax");
  if (rows == 0) return;
  check_pointer(values, size_of(dtype), "the values of an argmax");
  check_pointer(out, sizeof(*out), "the result of an argmax");
  with_vectors(dtype, fits_wide_access(dtype, {values}, {count}), [&]<typename T, int kCount>() {
    launch_early(argmax_kernel<T, kCount>, dim3(static_cast<unsigned>(rows)), kThreads, 0, stream, count,
                 static_cast<const T*>(values), out);
  });
}

}  // namespace qshard::optimized
