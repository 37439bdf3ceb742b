#pragma once

#include "optimized/device_math.cuh"

// How a warp dequantizes: shared by the kernels that rebuild a whole weight and those that rebuild a part of it.
namespace qshard::optimized {

/// Elements a thread writes at once: 16 bytes, so that a warp's reads and writes are both contiguous.
template <typename T>
constexpr int kVector = 16 / sizeof(T);

/// Bit position in a little-endian word of packed codes of its element `e`: the first of each two is the high nibble.
__device__ constexpr int nibble_shift(int e) {
  return 8 * (e / 2) + (e % 2 == 0 ? 4 : 0);
}

/// The packed codes of kCount elements from `codes` on.
template <int kCount>
__device__ __forceinline__ std::uint32_t load_codes(const std::uint8_t* codes) {
  if constexpr (kCount == 8) return __ldcs(reinterpret_cast<const std::uint32_t*>(codes));
  if constexpr (kCount == 4) return __ldcs(reinterpret_cast<const std::uint16_t*>(codes));
}

__device__ __forceinline__ void store(float* out, const float (&values)[4]) {
  *reinterpret_cast<float4*>(out) = make_float4(values[0], values[1], values[2], values[3]);
}

template <typename T>
__device__ __forceinline__ void store(T* out, const float (&values)[8]) {
  *reinterpret_cast<uint4*>(out) = make_uint4(round_pair<T>(values[0], values[1]), round_pair<T>(values[2], values[3]),
                                              round_pair<T>(values[4], values[5]), round_pair<T>(values[6], values[7]));
}

/// The elements of a warp's chunk: one vector a lane.
template <typename T>
constexpr int kChunkElements = 32 * kVector<T>;

/// The codes of a warp's kChunks chunks, one vector's a lane and chunk: all of the loads are in flight at once.
template <typename T, int kChunks>
struct WarpCodes {
  std::uint32_t word[kChunks];

  __device__ __forceinline__ WarpCodes(const std::uint8_t* codes, std::int64_t first) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const std::uint8_t* lane_codes = codes + first / 2 + lane * (kVector<T> / 2);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      word[chunk] = load_codes<kVector<T>>(lane_codes + chunk * kChunkElements<T> / 2);
    }
  }
};

/// The block whose scale this lane decodes for the elements [first, first + count) of its warp: lane l the l-th, as
/// far as there are so many.
__device__ __forceinline__ std::int64_t lane_block(std::int64_t first, int count, int block_shift) {
  const int blocks = static_cast<int>((first + count - 1 >> block_shift) - (first >> block_shift)) + 1;
  return (first >> block_shift) + min(static_cast<int>(threadIdx.x) % 32, blocks - 1);
}

/// Writes the elements of a warp's codes from `first` on to `out`. Lane l keeps codebook entry l % 16 in `entry`, and a
/// shuffle is the table look-up: no table in memory and no bank conflicts. `scale`: of lane_block(), shuffled to the
/// lanes that need it.
template <typename T, int kChunks>
__device__ __forceinline__ void rebuild(const WarpCodes<T, kChunks>& codes, float scale, float entry, int block_shift,
                                        std::int64_t first, T* out) {
  constexpr unsigned kAllLanes = 0xFFFFFFFFU;
  constexpr int kRun = kVector<T>;
  constexpr int kChunk = kChunkElements<T>;
  static_assert(kChunks * kChunk / 32 <= 32, "a lane decodes one scale, also in blocks of 32");
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int into_block = static_cast<int>(first & (1 << block_shift) - 1) + lane * kRun;
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const float run_scale = __shfl_sync(kAllLanes, scale, (into_block + chunk * kChunk) >> block_shift);
    float values[kRun];
#pragma unroll
    for (int e = 0; e < kRun; ++e) {
      const auto code = static_cast<int>(codes.word[chunk] >> nibble_shift(e));
      values[e] = multiply_ftz(__shfl_sync(kAllLanes, entry, code, 16), run_scale);
    }
    store(out + chunk * kChunk + lane * kRun, values);
  }
}

/// The two steps at once.
template <typename T, int kChunks>
__device__ __forceinline__ void rebuild_warp(const std::uint8_t* codes, const BlockScales& scales, float entry,
                                             int block_shift, std::int64_t first, T* out) {
  const WarpCodes<T, kChunks> loaded(codes, first);
  const float scale = scales[lane_block(first, kChunks * kChunkElements<T>, block_shift)];
  rebuild(loaded, scale, entry, block_shift, first, out);
}

}  // namespace qshard::optimized
