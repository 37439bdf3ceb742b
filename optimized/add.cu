#include <algorithm>

#include "optimized/add.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/device_math.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;

template <typename T>
__device__ __forceinline__ T rounded(float x);
template <>
__device__ __forceinline__ float rounded(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half rounded(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 rounded(float x) {
  return __float2bfloat16_rn(x);
}

/// 16 bytes of T.
template <typename T>
struct alignas(16) Pack {
  static constexpr int kCount = 16 / sizeof(T);
  T value[kCount];
};

struct Sum {
  template <typename T>
  __device__ __forceinline__ T operator()(T value, T operand) const {
    return rounded<T>(__fadd_rn(to_float(value), to_float(operand)));
  }
};

struct Replacement {
  template <typename T>
  __device__ __forceinline__ T operator()(T, T operand) const {
    return operand;
  }
};

/// values[row][column] = operation(values[row][column], operand[row * operand_stride + column]), in units of E (T or a
/// pack of T).
template <typename T, typename E, typename Operation>
__global__ void __launch_bounds__(kThreads)
    combine(std::int64_t rows, std::int64_t columns, std::int64_t stride, std::int64_t operand_stride, const E* operand,
            E* values, Operation operation) {
  begin_early_kernel();
  const std::int64_t count = rows * columns;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const std::int64_t row = i / columns;
    const std::int64_t column = i - row * columns;
    E& value = values[row * stride + column];
    if constexpr (std::is_same_v<T, E>) {
      value = operation(value, operand[row * operand_stride + column]);
    } else {
      E held = value;
      const E other = operand[row * operand_stride + column];
#pragma unroll
      for (int j = 0; j < E::kCount; ++j) held.value[j] = operation(held.value[j], other.value[j]);
      value = held;
    }
  }
}

bool is_aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

template <typename T, typename Operation>
void launch_typed(const RowsShape& shape, std::int64_t operand_stride, const void* operand, void* values,
                  Operation operation, cudaStream_t stream) {
  constexpr int kPack = Pack<T>::kCount;
  const bool packed = is_aligned(operand) && is_aligned(values) && shape.columns % kPack == 0 &&
                      shape.stride % kPack == 0 && operand_stride % kPack == 0;
  const std::int64_t unit = packed ? kPack : 1;
  const std::int64_t items = shape.rows * shape.columns / unit;
  const auto blocks = static_cast<unsigned>(std::min<std::int64_t>((items + kThreads - 1) / kThreads, 1 << 16));
  if (packed) {
    launch_early(combine<T, Pack<T>, Operation>, dim3(blocks), kThreads, 0, stream, shape.rows, shape.columns / unit,
                 shape.stride / unit, operand_stride / unit, static_cast<const Pack<T>*>(operand),
                 static_cast<Pack<T>*>(values), operation);
  } else {
    launch_early(combine<T, T, Operation>, dim3(blocks), kThreads, 0, stream, shape.rows, shape.columns, shape.stride,
                 operand_stride, static_cast<const T*>(operand), static_cast<T*>(values), operation);
  }
}

template <typename Operation>
void launch(const RowsShape& shape, std::int64_t operand_stride, const void* operand, void* values, Operation operation,
            cudaStream_t stream) {
  check_floating(shape.dtype, "the dtype of an addition");
  check_at_least(shape.rows, 0, "the number of rows of an addition");
  check_at_least(shape.columns, 1, "the number of columns of an addition");
  check_at_least(shape.stride, shape.columns, "the row stride of an addition");
  check_pointer(operand, size_of(shape.dtype), "the operand of an addition");
  check_pointer(values, size_of(shape.dtype), "the values of an addition");
  if (shape.rows == 0) return;
  if (shape.dtype == DType::bf16) {
    launch_typed<__nv_bfloat16>(shape, operand_stride, operand, values, operation, stream);
  } else if (shape.dtype == DType::f16) {
    launch_typed<__half>(shape, operand_stride, operand, values, operation, stream);
  } else {
    launch_typed<float>(shape, operand_stride, operand, values, operation, stream);
  }
}

}  // namespace

void add(std::int64_t count, DType dtype, const void* addend, void* values, cudaStream_t stream) {
  launch({1, count, count, dtype}, 0, addend, values, Sum{}, stream);
}

void add_bias(const RowsShape& shape, const void* bias, void* values, cudaStream_t stream) {
  launch(shape, 0, bias, values, Sum{}, stream);
}

void copy_rows(const RowsShape& shape, const void* from, void* to, cudaStream_t stream) {
  launch(shape, shape.stride, from, to, Replacement{}, stream);
}

}  // namespace qshard::optimized
