#include <bit>

#include "optimized/dequantize.h"
#include "optimized/device/dtype_dispatch.h"
#include "optimized/device/early_launch.h"
#include "optimized/device_math.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized {

namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFU;
constexpr int kThreads = 256;
constexpr int kChunks = 4;  // independent loads in flight a thread

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

__device__ __forceinline__ void store_one(float* out, float value) {
  *out = value;
}

template <typename T>
__device__ __forceinline__ void store_one(T* out, float value) {
  *reinterpret_cast<std::uint16_t*>(out) = static_cast<std::uint16_t>(round_pair<T>(value, 0.0F));
}

/// What a warp rebuilds: kChunks chunks of 32 runs, one run a lane and chunk.
template <typename T>
constexpr int kWarpElements = kChunks * 32 * kVector<T>;
template <typename T>
constexpr int kTileElements = kThreads / 32 * kWarpElements<T>;

/// A warp's elements, of which only those of whole runs inside the weight where not kWhole. Lane l keeps codebook entry
/// l % 16 in a register, and a shuffle is the table look-up: no table in memory and no bank conflicts. Each block's
/// scale is decoded by one lane and shuffled to those that need it.
template <typename T, bool kWhole>
__device__ __forceinline__ void rebuild_warp(const std::uint8_t* codes, const BlockScales& scales, float entry,
                                             int block_shift, std::int64_t first, std::int64_t elements, T* out) {
  constexpr int kRun = kVector<T>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto inside = [&](int chunk) { return kWhole || first + (chunk * 32 + lane + 1) * kRun <= elements; };
  const std::uint8_t* lane_codes = codes + first / 2 + lane * (kRun / 2);
  std::uint32_t word[kChunks];
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    word[chunk] = inside(chunk) ? load_codes<kRun>(lane_codes + chunk * 32 * kRun / 2) : 0;
  }
  const int blocks = max(1, kWarpElements<T> >> block_shift);
  std::int64_t block = (first >> block_shift) + min(lane, blocks - 1);
  if constexpr (!kWhole) block = min(block, (elements - 1) >> block_shift);
  const float decoded = scales[block];
  T* lane_out = out + first + lane * kRun;
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const float scale = __shfl_sync(kAllLanes, decoded, (chunk * 32 * kRun + lane * kRun) >> block_shift);
    float values[kRun];
#pragma unroll
    for (int e = 0; e < kRun; ++e) {
      values[e] =
          multiply_ftz(__shfl_sync(kAllLanes, entry, static_cast<int>(word[chunk] >> nibble_shift(e)), 16), scale);
    }
    if (inside(chunk)) store(lane_out + chunk * 32 * kRun, values);
  }
}

/// The elements behind the last whole run, fewer than one: a lane each.
template <typename T>
__device__ __forceinline__ void rebuild_rest(const std::uint8_t* codes, const BlockScales& scales,
                                             const CodebookValues& codebook, int block_shift, std::int64_t elements,
                                             T* out) {
  const std::int64_t i = elements / kVector<T> * kVector<T> + threadIdx.x % 32;
  if (i >= elements) return;
  const int code = codes[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15;
  store_one(out + i, multiply_ftz(codebook.value[code], scales[i >> block_shift]));
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    dequantize_kernel(const std::uint8_t* codes, BlockScales scales, const __grid_constant__ CodebookValues codebook,
                      int block_shift, std::int64_t elements, T* out) {
  begin_early_kernel();
  const std::int64_t first =
      static_cast<std::int64_t>(blockIdx.x) * kTileElements<T> + threadIdx.x / 32 * kWarpElements<T>;
  const float entry = codebook.value[threadIdx.x % 16];
  if (first + kWarpElements<T> <= elements) {
    rebuild_warp<T, true>(codes, scales, entry, block_shift, first, elements, out);
  } else if (first < elements) {
    rebuild_warp<T, false>(codes, scales, entry, block_shift, first, elements, out);
    rebuild_rest(codes, scales, codebook, block_shift, elements, out);
  }
}

template <typename T>
void launch(const DeviceWeight4bit& weight, void* out, cudaStream_t stream) {
  const auto tiles = static_cast<unsigned>(block_count(weight.elements, kTileElements<T>));
  const int block_shift = std::countr_zero(static_cast<unsigned>(weight.blocksize));
  launch_early(dequantize_kernel<T>, dim3(tiles), kThreads, 0, stream, weight.codes, BlockScales(weight),
               CodebookValues(weight.quant_type), block_shift, weight.elements, static_cast<T*>(out));
}

}  // namespace

void dequantize(const DeviceWeight4bit& weight, DType dtype, void* out, cudaStream_t stream) {
  check_weight(weight);
  check_floating(dtype, "the dtype of a dequantized weight");
  check_pointer(out, 16, "the dequantized weight");
  dispatch_floating(dtype, [&]<typename T>(std::type_identity<T>) { launch<T>(weight, out, stream); });
}

}  // namespace qshard::optimized
