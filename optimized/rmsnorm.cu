#include <type_traits>

#include "core/tensor/weight4bit.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/element_vector.cuh"
#include "optimized/ptx/prefetch.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/rmsnorm.h"
#include "optimized/team_reduce.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;
constexpr int kHeld = 4;  // vectors that a thread keeps in registers between its two passes over a row

/// A row is what is normalized at once: a group of a token. kTeam threads share it, a warp or the whole thread block.
struct NormTask {
  std::int64_t rows;
  std::int64_t groups;
  std::int64_t size;
  std::int64_t x_stride;
  std::int64_t y_stride;
  float epsilon;

  [[nodiscard]] __device__ std::int64_t x_offset(std::int64_t row) const {
    return row / groups * x_stride + row % groups * size;
  }
  [[nodiscard]] __device__ std::int64_t y_offset(std::int64_t row) const {
    return row / groups * y_stride + row % groups * size;
  }
  [[nodiscard]] __device__ float reciprocal_root_mean_square(float squares) const {
    return 1.0F / sqrtf(squares / static_cast<float>(size) + epsilon);
  }
};

template <int kTeam>
__device__ __forceinline__ std::int64_t row_of_team() {
  return static_cast<std::int64_t>(blockIdx.x) * (kThreads / kTeam) + threadIdx.x / kTeam;
}

/// visit(k, i) for those vectors i below `vectors` of this thread that are kept in registers; k is their place there, a
/// constant after unrolling.
template <int kTeam, typename Visit>
__device__ __forceinline__ void for_held_vectors(int vectors, const Visit& visit) {
  const int lane = static_cast<int>(threadIdx.x) % kTeam;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * kTeam < vectors) visit(k, lane + k * kTeam);
  }
}

/// The same for all of this thread's vectors; k is kHeld for those that are not kept.
template <int kTeam, typename Visit>
__device__ __forceinline__ void for_own_vectors(int vectors, const Visit& visit) {
  for_held_vectors<kTeam>(vectors, visit);
  const int lane = static_cast<int>(threadIdx.x) % kTeam;
  for (int i = lane + kHeld * kTeam; i < vectors; i += kTeam) visit(kHeld, i);
}

/// Makes the compiler take the held vectors for unknown from here on. It would otherwise keep each of their elements as
/// a float, in twice the registers, instead of converting it again.
template <typename T, int kCount>
__device__ __forceinline__ void keep_packed(ElementVector<T, kCount> (&held)[kHeld]) {
  if constexpr (kCount > 1) {
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      auto& words = reinterpret_cast<uint4&>(held[k]);
      asm volatile("" : "+r"(words.x), "+r"(words.y), "+r"(words.z), "+r"(words.w));
    }
  }
}

/// weight * round(x r), rounded: y.
template <typename T, int kCount>
__device__ __forceinline__ ElementVector<T, kCount> normed(const float (&x)[kCount], float r,
                                                           const float (&weight)[kCount]) {
  float y[kCount];
#pragma unroll
  for (int e = 0; e < kCount; ++e) y[e] = x[e] * r;
  round_to<T>(y);
#pragma unroll
  for (int e = 0; e < kCount; ++e) y[e] *= weight[e];
  return rounded<T>(y);
}

/// With an addend x becomes the sum of both first, and x_rows is written; that is for the few rows of generation, which
/// wait for each access and do not fill a multiprocessor.
template <typename T, int kCount, int kTeam, bool kAdds>
__global__ void __launch_bounds__(kThreads, kAdds ? 2 : 3)
    forward_kernel(const NormTask task, const T* addend_rows, const T* weight,
                   std::conditional_t<kAdds, T, const T>* x_rows, T* y_rows) {
  trigger_programmatic_launch_completion();
  const std::int64_t row = row_of_team<kTeam>();
  if (row >= task.rows) return;
  auto* x = x_rows + task.x_offset(row);
  if constexpr (kAdds && kCount > 1) {
    // A token's norm waits for memory alone.
    const int own = static_cast<int>(threadIdx.x) % kTeam;
    for (int i = own; i < static_cast<int>(task.size / kCount); i += kTeam) {
      prefetch_to_l2(&vector_at<kCount>(weight, i));
      prefetch_to_l2(&vector_at<kCount>(x, i));
    }
  }
  grid_dependency_synchronize();
  T* y = y_rows + task.y_offset(row);
  const int vectors = static_cast<int>(task.size / kCount);
  // All is on its way before the first of it is waited for.
  ElementVector<T, kCount> held[kHeld];
  ElementVector<T, kCount> held_addend[kHeld];
  ElementVector<T, kCount> held_weight[kHeld];
  const T* addend = kAdds ? addend_rows + task.x_offset(row) : nullptr;
  for_held_vectors<kTeam>(vectors, [&](int k, int i) {
    held[k] = vector_at<kCount>(x, i);
    if constexpr (kAdds) held_addend[k] = vector_at<kCount>(addend, i);
    held_weight[k] = vector_at<kCount>(weight, i);
  });
  float values[kCount];

  float squares = 0.0F;
  for_own_vectors<kTeam>(vectors, [&](int k, int i) {
    ElementVector<T, kCount> vector = k < kHeld ? held[k] : vector_at<kCount>(x, i);
    if constexpr (kAdds) {
      float added[kCount];
      to_floats(vector, values);
      to_floats(k < kHeld ? held_addend[k] : vector_at<kCount>(addend, i), added);
#pragma unroll
      for (int e = 0; e < kCount; ++e) values[e] += added[e];
      vector = rounded<T>(values);
      vector_at<kCount>(x, i) = vector;
      if (k < kHeld) held[k] = vector;
    }
    to_floats(vector, values);
#pragma unroll
    for (int e = 0; e < kCount; ++e) squares += values[e] * values[e];
  });
  const float r = task.reciprocal_root_mean_square(team_reduce<kTeam>(squares, Sum{}));
  keep_packed(held);

  for_own_vectors<kTeam>(vectors, [&](int k, int i) {
    to_floats(k < kHeld ? held[k] : vector_at<kCount>(x, i), values);
    float factors[kCount];
    to_floats(k < kHeld ? held_weight[k] : vector_at<kCount>(weight, i), factors);
    vector_at<kCount>(y, i) = normed<T>(values, r, factors);
  });
}

template <typename T, int kCount, int kTeam>
__global__ void __launch_bounds__(kThreads, 3)
    backward_kernel(const NormTask task, const T* x_rows, const T* weight, const T* dy_rows, const T* addend_rows,
                    T* dx_rows, T* y_rows) {
  begin_early_kernel();
  const std::int64_t row = row_of_team<kTeam>();
  if (row >= task.rows) return;
  const T* x = x_rows + task.x_offset(row);
  const T* addend = addend_rows != nullptr ? addend_rows + task.x_offset(row) : nullptr;
  const T* dy = dy_rows + task.y_offset(row);
  T* dx = dx_rows + task.y_offset(row);
  T* y = y_rows != nullptr ? y_rows + task.y_offset(row) : nullptr;
  const int vectors = static_cast<int>(task.size / kCount);
  ElementVector<T, kCount> held_x[kHeld];
  ElementVector<T, kCount> held_dy[kHeld];
  float values[kCount];
  float gradients[kCount];
  float factors[kCount];

  float squares = 0.0F;
  float products = 0.0F;
  for_own_vectors<kTeam>(vectors, [&](int k, int i) {
    const ElementVector<T, kCount> x_vector = vector_at<kCount>(x, i);
    const ElementVector<T, kCount> dy_vector = vector_at<kCount>(dy, i);
    if (k < kHeld) {
      held_x[k] = x_vector;
      held_dy[k] = dy_vector;
    }
    to_floats(x_vector, values);
    to_floats(dy_vector, gradients);
    to_floats(vector_at<kCount>(weight, i), factors);
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      squares += values[e] * values[e];
      products += gradients[e] * factors[e] * values[e];
    }
  });
  const float r = task.reciprocal_root_mean_square(team_reduce<kTeam>(squares, Sum{}));
  const float mean = team_reduce<kTeam>(products, Sum{}) / static_cast<float>(task.size);
  const float towards_x = r * r * mean;
  keep_packed(held_x);
  keep_packed(held_dy);

  for_own_vectors<kTeam>(vectors, [&](int k, int i) {
    to_floats(k < kHeld ? held_x[k] : vector_at<kCount>(x, i), values);
    to_floats(k < kHeld ? held_dy[k] : vector_at<kCount>(dy, i), gradients);
    to_floats(vector_at<kCount>(weight, i), factors);
    if (y != nullptr) vector_at<kCount>(y, i) = normed<T>(values, r, factors);
#pragma unroll
    for (int e = 0; e < kCount; ++e) values[e] = r * (gradients[e] * factors[e] - values[e] * towards_x);
    if (addend != nullptr) {
      round_to<T>(values);
      float added[kCount];
      to_floats(vector_at<kCount>(addend, i), added);
#pragma unroll
      for (int e = 0; e < kCount; ++e) values[e] += added[e];
    }
    vector_at<kCount>(dx, i) = rounded<T>(values);
  });
}

/// What a warp can hold takes a warp; longer rows take a thread block. launch.operator()<T, kCount, kTeam>(blocks).
template <typename Launch>
void with_team(const NormShape& shape, bool wide, const Launch& launch) {
  const std::int64_t rows = shape.tokens * shape.groups;
  with_vectors(shape.dtype, wide, [&]<typename T, int kCount>() {
    if (shape.size / kCount <= 32 * kHeld) {
      launch.template operator()<T, kCount, 32>(static_cast<unsigned>(block_count(rows, kThreads / 32)));
    } else {
      launch.template operator()<T, kCount, kThreads>(static_cast<unsigned>(rows));
    }
  });
}

void check(const NormShape& shape) {
  check_floating(shape.dtype, "the dtype of a normalization");
  check_at_least(shape.tokens, 0, "the number of tokens");
  check_at_least(shape.groups, 1, "the number of groups of a normalization");
  check_at_least(shape.size, 1, "the size of a normalization");
  check_at_least(shape.x_stride, shape.groups * shape.size, "the stride of a normalization's x");
  check_at_least(shape.y_stride, shape.groups * shape.size, "the stride of a normalization's y");
}

void check_forward(const NormShape& shape, const void* x, const void* weight, const void* y) {
  check_pointer(x, size_of(shape.dtype), "a normalization's x");
  check_pointer(weight, size_of(shape.dtype), "a normalization's weight");
  check_pointer(y, size_of(shape.dtype), "a normalization's y");
}

NormTask task_of(const NormShape& shape) {
  return {shape.tokens * shape.groups,      shape.groups, shape.size, shape.x_stride, shape.y_stride,
          static_cast<float>(shape.epsilon)};
}

}  // namespace

void rmsnorm_forward(const NormShape& shape, const void* x, const void* weight, void* y, cudaStream_t stream) {
  check(shape);
  if (shape.tokens == 0) return;
  check_forward(shape, x, weight, y);
  const bool wide = fits_wide_access(shape.dtype, {x, weight, y}, {shape.size, shape.x_stride, shape.y_stride});
  with_team(shape, wide, [&]<typename T, int kCount, int kTeam>(unsigned blocks) {
    launch_early(forward_kernel<T, kCount, kTeam, false>, dim3(blocks), kThreads, 0, stream, task_of(shape),
                 static_cast<const T*>(nullptr), static_cast<const T*>(weight), static_cast<const T*>(x),
                 static_cast<T*>(y));
  });
}

void add_rmsnorm_forward(const NormShape& shape, const void* addend, const void* weight, void* x, void* y,
                         cudaStream_t stream) {
  if (addend == nullptr) return rmsnorm_forward(shape, x, weight, y, stream);
  check(shape);
  if (shape.tokens == 0) return;
  check_forward(shape, x, weight, y);
  check_pointer(addend, size_of(shape.dtype), "what is added before a normalization");
  const bool wide = fits_wide_access(shape.dtype, {x, addend, weight, y}, {shape.size, shape.x_stride, shape.y_stride});
  with_team(shape, wide, [&]<typename T, int kCount, int kTeam>(unsigned blocks) {
    launch_early(forward_kernel<T, kCount, kTeam, true>, dim3(blocks), kThreads, 0, stream, task_of(shape),
                 static_cast<const T*>(addend), static_cast<const T*>(weight), static_cast<T*>(x), static_cast<T*>(y));
  });
}

void rmsnorm_backward(const NormShape& shape, const void* x, const void* weight, const void* dy, const void* addend,
                      void* dx, void* y, cudaStream_t stream) {
  check(shape);
  if (shape.tokens == 0) return;
  check_pointer(x, size_of(shape.dtype), "a normalization's x");
  check_pointer(weight, size_of(shape.dtype), "a normalization's weight");
  check_pointer(dy, size_of(shape.dtype), "a normalization's dy");
  check_pointer(dx, size_of(shape.dtype), "a normalization's dx");
  if (addend != nullptr) check_pointer(addend, size_of(shape.dtype), "what is added to a normalization's dx");
  if (y != nullptr) check_pointer(y, size_of(shape.dtype), "a normalization's y");
  const bool wide =
      fits_wide_access(shape.dtype, {x, weight, dy, addend, dx, y}, {shape.size, shape.x_stride, shape.y_stride});
  with_team(shape, wide, [&]<typename T, int kCount, int kTeam>(unsigned blocks) {
    launch_early(backward_kernel<T, kCount, kTeam>, dim3(blocks), kThreads, 0, stream, task_of(shape),
                 static_cast<const T*>(x), static_cast<const T*>(weight), static_cast<const T*>(dy),
                 static_cast<const T*>(addend), static_cast<T*>(dx), static_cast<T*>(y));
  });
}

}  // namespace qshard::optimized
