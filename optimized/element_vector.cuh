#pragma once

#include <cstring>
#include <initializer_list>

#include "core/tensor/dtype.h"
#include "optimized/device_math.cuh"

// Neighbouring elements read and written at once, their rounding, and the choice between this and one element at a
// time.
namespace qshard::optimized {

constexpr std::size_t kAccessBytes = 16;  // the widest access that every supported GPU has

/// Elements of one access.
template <typename T>
constexpr int kAccessElements = kAccessBytes / sizeof(T);

/// kCount neighbouring elements. Copying one is as few accesses as its size allows, of at most 16 bytes each.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < kAccessBytes ? sizeof(T) * kCount : kAccessBytes) ElementVector {
  T element[kCount];
};

/// Vector `i` of an array.
template <int kCount, typename T>
__device__ __forceinline__ ElementVector<T, kCount>& vector_at(T* array, std::int64_t i) {
  return reinterpret_cast<ElementVector<T, kCount>*>(array)[i];
}

template <int kCount, typename T>
__device__ __forceinline__ const ElementVector<T, kCount>& vector_at(const T* array, std::int64_t i) {
  return reinterpret_cast<const ElementVector<T, kCount>*>(array)[i];
}

/// By value, so that a vector in memory is read as such and not element by element.
template <typename T, int kCount>
__device__ __forceinline__ void to_floats(ElementVector<T, kCount> vector, float (&values)[kCount]) {
#pragma unroll
  for (int e = 0; e < kCount; ++e) values[e] = to_float(vector.element[e]);
}

/// Rounded to T: nearest, ties to even.
template <typename T, int kCount>
__device__ __forceinline__ ElementVector<T, kCount> rounded(const float (&values)[kCount]) {
  ElementVector<T, kCount> vector;
  if constexpr (sizeof(T) == 4 || kCount == 1) {
#pragma unroll
    for (int e = 0; e < kCount; ++e) vector.element[e] = static_cast<T>(values[e]);
  } else {
#pragma unroll
    for (int e = 0; e < kCount; e += 2) {
      const std::uint32_t pair = round_pair<T>(values[e], values[e + 1]);
      memcpy(&vector.element[e], &pair, sizeof(pair));
    }
  }
  return vector;
}

/// Rounds to T and back: an operation's result as T would hold it.
template <typename T, int kCount>
__device__ __forceinline__ void round_to(float (&values)[kCount]) {
  to_floats(rounded<T>(values), values);
}

/// True where all pointers, and all of these numbers of elements of `dtype` (strides, sizes), are multiples of 16
/// bytes.
inline bool fits_wide_access(DType dtype, std::initializer_list<const void*> pointers,
                             std::initializer_list<std::int64_t> elements) {
  for (const void* pointer : pointers) {
    if (reinterpret_cast<std::uintptr_t>(pointer) % kAccessBytes != 0) return false;
  }
  for (const std::int64_t count : elements) {
    if (count * size_of(dtype) % kAccessBytes != 0) return false;
  }
  return true;
}

/// launch.operator()<T>() with the type that a floating `dtype` names.
template <typename Launch>
void with_dtype(DType dtype, const Launch& launch) {
  switch (dtype) {
    case DType::f16:
      return launch.template operator()<__half>();
    case DType::bf16:
      return launch.template operator()<__nv_bfloat16>();
    default:
      return launch.template operator()<float>();
  }
}

/// launch.operator()<T, kCount>(); kCount: the elements of a wide access, or 1.
template <typename Launch>
void with_vectors(DType dtype, bool wide, const Launch& launch) {
  with_dtype(dtype, [&]<typename T>() {
    if (wide) {
      launch.template operator()<T, kAccessElements<T>>();
    } else {
      launch.template operator()<T, 1>();
    }
  });
}

}  // namespace qshard::optimized
