#include "core/tensor/weight4bit.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/element_vector.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/rope.h"
#include "optimized/rotate.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;
constexpr int kHeadsPerThread = 4;  // with one reading of the tables

struct RopeTask {
  std::int64_t items;  // tokens * head_groups * vectors
  std::int64_t heads;
  std::int64_t head_groups;  // of kHeadsPerThread heads
  std::int64_t half;         // head_dim / 2
  std::int64_t vectors;      // of a half
  std::int64_t stride;
  float direction;  // 1, or -1 for the opposite angle
};

/// A thread has one vector of the half of kHeadsPerThread heads of a token.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads, 3) rotate_kernel(const RopeTask task, const std::int32_t* positions,
                                                             const float* cos_table, const float* sin_table, T* x) {
  begin_early_kernel();
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= task.items) return;
  const std::int64_t group = item / task.vectors;
  const std::int64_t token = group / task.head_groups;
  const std::int64_t in_half = (item - group * task.vectors) * kCount;
  const std::int64_t first_head = (group - token * task.head_groups) * kHeadsPerThread;

  const std::int64_t in_table = positions[token] * task.half + in_half;
  float cos[kCount];
  float sin[kCount];
  to_floats(vector_at<kCount>(cos_table + in_table, 0), cos);
  to_floats(vector_at<kCount>(sin_table + in_table, 0), sin);
#pragma unroll
  for (int e = 0; e < kCount; ++e) sin[e] *= task.direction;

  T* base = x + token * task.stride + first_head * 2 * task.half + in_half;
  ElementVector<T, kCount> first[kHeadsPerThread];
  ElementVector<T, kCount> second[kHeadsPerThread];
#pragma unroll
  for (int h = 0; h < kHeadsPerThread; ++h) {
    if (first_head + h >= task.heads) continue;
    first[h] = vector_at<kCount>(base + h * 2 * task.half, 0);
    second[h] = vector_at<kCount>(base + (2 * h + 1) * task.half, 0);
  }
#pragma unroll
  for (int h = 0; h < kHeadsPerThread; ++h) {
    if (first_head + h >= task.heads) continue;
    rotate(cos, sin, first[h], second[h]);
    vector_at<kCount>(base + h * 2 * task.half, 0) = first[h];
    vector_at<kCount>(base + (2 * h + 1) * task.half, 0) = second[h];
  }
}

void check(const RopeShape& shape, const std::int32_t* positions, const float* cos, const float* sin, const void* x) {
  check_floating(shape.dtype, "the dtype of the rotary embedding");
  check_at_least(shape.tokens, 0, "the number of tokens");
  check_at_least(shape.heads, 1, "the number of heads of the rotary embedding");
  check_at_least(shape.head_dim, 2, "the head_dim of the rotary embedding");
  check_multiple(shape.head_dim, 2, "the head_dim of the rotary embedding");
  check_at_least(shape.stride, shape.heads * shape.head_dim, "the stride of the rotary embedding");
  if (shape.tokens == 0) return;
  check_pointer(positions, sizeof(*positions), "the positions of the rotary embedding");
  check_pointer(cos, sizeof(*cos), "the cosines of the rotary embedding");
  check_pointer(sin, sizeof(*sin), "the sines of the rotary embedding");
  check_pointer(x, size_of(shape.dtype), "the input of the rotary embedding");
}

void rotate(const RopeShape& shape, const std::int32_t* positions, const float* cos, const float* sin, void* x,
            float direction, cudaStream_t stream) {
  check(shape, positions, cos, sin, x);
  if (shape.tokens == 0) return;
  const std::int64_t half = shape.head_dim / 2;
  const bool wide = fits_wide_access(shape.dtype, {x, cos, sin}, {half, shape.stride});
  with_vectors(shape.dtype, wide, [&]<typename T, int kCount>() {
    const std::int64_t groups = block_count(shape.heads, kHeadsPerThread);
    const std::int64_t vectors = half / kCount;
    const RopeTask task{shape.tokens * groups * vectors, shape.heads, groups, half, vectors, shape.stride, direction};
    const auto blocks = static_cast<unsigned>(block_count(task.items, kThreads));
    launch_early(rotate_kernel<T, kCount>, dim3(blocks), kThreads, 0, stream, task, positions, cos, sin,
                 static_cast<T*>(x));
  });
}

}  // namespace

void rope_forward(const RopeShape& shape, const std::int32_t* positions, const float* cos, const float* sin, void* x,
                  cudaStream_t stream) {
  rotate(shape, positions, cos, sin, x, 1.0F, stream);
}

void rope_backward(const RopeShape& shape, const std::int32_t* positions, const float* cos, const float* sin, void* dx,
                   cudaStream_t stream) {
  rotate(shape, positions, cos, sin, dx, -1.0F, stream);
}

}  // namespace qshard::optimized
