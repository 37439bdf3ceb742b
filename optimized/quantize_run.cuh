#pragma once

#include <cstring>
#include <type_traits>

#include "optimized/device_math.cuh"

// What a thread of the quantize kernel holds at once: eight elements as they lie in memory.
namespace qshard::optimized {

inline constexpr int kRun = 8;  // one 32-bit word of codes

/// The lower (0) or upper (1) one of two 16-bit numbers.
template <typename T>
__device__ __forceinline__ float half_of(std::uint32_t pair, int half) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return __uint_as_float(half == 0 ? pair << 16 : pair & 0xFFFF0000U);
  return __half2float(__ushort_as_half(static_cast<unsigned short>(pair >> (16 * half))));
}

template <typename T>
struct Run {
  static constexpr int kWords = kRun * sizeof(T) / sizeof(std::uint32_t);
  std::uint32_t words[kWords];

  __device__ __forceinline__ float operator[](int e) const {
    if constexpr (sizeof(T) == 4) return __uint_as_float(words[e]);
    return half_of<T>(words[e / 2], e % 2);
  }
};

/// Loads a run of which `count` elements exist; zeros stand for the others.
template <bool kWhole, typename T>
__device__ __forceinline__ Run<T> load_run(const T* weight, std::int64_t count) {
  Run<T> run{};
  if (kWhole || count >= kRun) {
#pragma unroll
    for (int i = 0; i < Run<T>::kWords / 4; ++i) {
      const uint4 quad = __ldcs(reinterpret_cast<const uint4*>(weight) + i);
      run.words[4 * i] = quad.x;
      run.words[4 * i + 1] = quad.y;
      run.words[4 * i + 2] = quad.z;
      run.words[4 * i + 3] = quad.w;
    }
  } else {
    T padded[kRun] = {};
#pragma unroll
    for (int e = 0; e < kRun; ++e) {
      if (e < count) padded[e] = weight[e];
    }
    memcpy(run.words, padded, sizeof padded);
  }
  return run;
}

/// Stores the codes of a run of which `count` elements exist; an odd one's byte has the code of 0, too.
template <bool kWhole>
__device__ __forceinline__ void store_codes(std::uint8_t* codes, std::uint32_t word, std::int64_t count) {
  if (kWhole || count >= kRun) {
    __stcs(reinterpret_cast<std::uint32_t*>(codes), word);
  } else {
#pragma unroll
    for (int byte = 0; byte < kRun / 2; ++byte) {
      if (2 * byte < count) codes[byte] = static_cast<std::uint8_t>(word >> (8 * byte));
    }
  }
}

}  // namespace qshard::optimized
