#include "core/tensor/weight4bit.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/element_vector.cuh"
#include "optimized/exponential.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/swiglu.h"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;

/// Thread block (t, b) has kThreads vectors of token t.
template <int kCount>
__device__ __forceinline__ std::int64_t first_element() {
  return static_cast<std::int64_t>(blockIdx.y * kThreads + threadIdx.x) * kCount;
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const SwigluShape shape, const T* gates, const T* ups, T* outs) {
  begin_early_kernel();
  const std::int64_t at = first_element<kCount>();
  if (at >= shape.size) return;
  const std::int64_t token = blockIdx.x;
  float gate[kCount];
  float up[kCount];
  to_floats(vector_at<kCount>(gates + token * shape.gate_stride + at, 0), gate);
  to_floats(vector_at<kCount>(ups + token * shape.up_stride + at, 0), up);
#pragma unroll
  for (int e = 0; e < kCount; ++e) gate[e] *= logistic<T>(gate[e]);
  round_to<T>(gate);
#pragma unroll
  for (int e = 0; e < kCount; ++e) gate[e] *= up[e];
  vector_at<kCount>(outs + token * shape.out_stride + at, 0) = rounded<T>(gate);
}

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) backward_kernel(const SwigluShape shape, const T* gates, const T* ups,
                                                            const T* douts, T* dgates, T* dups, T* outs) {
  begin_early_kernel();
  const std::int64_t at = first_element<kCount>();
  if (at >= shape.size) return;
  const std::int64_t token = blockIdx.x;
  const std::int64_t gate_at = token * shape.gate_stride + at;
  const std::int64_t up_at = token * shape.up_stride + at;
  const std::int64_t out_at = token * shape.out_stride + at;
  float gate[kCount];
  float up[kCount];
  float dout[kCount];
  to_floats(vector_at<kCount>(gates + gate_at, 0), gate);
  to_floats(vector_at<kCount>(ups + up_at, 0), up);
  to_floats(vector_at<kCount>(douts + out_at, 0), dout);

  float slope[kCount];  // silu'(gate)
#pragma unroll
  for (int e = 0; e < kCount; ++e) {
    const float s = logistic<T>(gate[e]);
    slope[e] = s * (1.0F + gate[e] * (1.0F - s));
    gate[e] *= s;
  }
  round_to<T>(gate);
  if (outs != nullptr) {
    float out[kCount];
#pragma unroll
    for (int e = 0; e < kCount; ++e) out[e] = gate[e] * up[e];
    vector_at<kCount>(outs + out_at, 0) = rounded<T>(out);
  }
#pragma unroll
  for (int e = 0; e < kCount; ++e) up[e] *= dout[e];
  round_to<T>(up);
#pragma unroll
  for (int e = 0; e < kCount; ++e) {
    gate[e] *= dout[e];
    up[e] *= slope[e];
  }
  vector_at<kCount>(dups + up_at, 0) = rounded<T>(gate);
  vector_at<kCount>(dgates + gate_at, 0) = rounded<T>(up);
}

void check(const SwigluShape& shape) {
  check_floating(shape.dtype, "the dtype of the gated unit");
  check_at_least(shape.tokens, 0, "the number of tokens");
  check_at_least(shape.size, 1, "the size of the gated unit");
  check_at_least(shape.gate_stride, shape.size, "the stride of the gate");
  check_at_least(shape.up_stride, shape.size, "the stride of the gated unit's up");
  check_at_least(shape.out_stride, shape.size, "the stride of the gated unit's output");
}

bool is_wide(const SwigluShape& shape, std::initializer_list<const void*> pointers) {
  return fits_wide_access(shape.dtype, pointers, {shape.size, shape.gate_stride, shape.up_stride, shape.out_stride});
}

dim3 grid_of(const SwigluShape& shape, int count) {
  return {static_cast<unsigned>(shape.tokens), static_cast<unsigned>(block_count(shape.size, kThreads * count))};
}

}  // namespace

void swiglu_forward(const SwigluShape& shape, const void* gate, const void* up, void* out, cudaStream_t stream) {
  check(shape);
  if (shape.tokens == 0) return;
  check_pointer(gate, size_of(shape.dtype), "the gate");
  check_pointer(up, size_of(shape.dtype), "the gated unit's up");
  check_pointer(out, size_of(shape.dtype), "the gated unit's output");
  with_vectors(shape.dtype, is_wide(shape, {gate, up, out}), [&]<typename T, int kCount>() {
    launch_early(forward_kernel<T, kCount>, grid_of(shape, kCount), kThreads, 0, stream, shape,
                 static_cast<const T*>(gate), static_cast<const T*>(up), static_cast<T*>(out));
  });
}

void swiglu_backward(const SwigluShape& shape, const void* gate, const void* up, const void* dout, void* dgate,
                     void* dup, void* out, cudaStream_t stream) {
  check(shape);
  if (shape.tokens == 0) return;
  check_pointer(gate, size_of(shape.dtype), "the gate");
  check_pointer(up, size_of(shape.dtype), "the gated unit's up");
  check_pointer(dout, size_of(shape.dtype), "the gradient of the gated unit's output");
  check_pointer(dgate, size_of(shape.dtype), "the gradient of the gate");
  check_pointer(dup, size_of(shape.dtype), "the gradient of the gated unit's up");
  if (out != nullptr) check_pointer(out, size_of(shape.dtype), "the gated unit's output");
  const bool wide = is_wide(shape, {gate, up, dout, dgate, dup, out});
  with_vectors(shape.dtype, wide, [&]<typename T, int kCount>() {
    launch_early(backward_kernel<T, kCount>, grid_of(shape, kCount), kThreads, 0, stream, shape,
                 static_cast<const T*>(gate), static_cast<const T*>(up), static_cast<const T*>(dout),
                 static_cast<T*>(dgate), static_cast<T*>(dup), static_cast<T*>(out));
  });
}

}  // namespace qshard::optimized
