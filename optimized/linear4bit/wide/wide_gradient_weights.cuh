#pragma once

#include <cstdint>

#include "optimized/linear4bit/wide/wide_tiles.cuh"
#include "optimized/ptx/shared_access.cuh"

namespace qshard::optimized::wide {

/// A warp's part of the weight, 16 of its columns, step by step along the weight's rows. The scales are those of the
/// step's 128 rows in the block of the warpgroup's columns: each lane reads four of the step after ahead.
template <typename T>
class GradientWeights {
 public:
  /// Asks for the first scales. codes: of the first stage; steps: how many there are.
  __device__ __forceinline__ GradientWeights(const Task<T>& task, unsigned char* table, std::uint32_t codes,
                                             std::uint32_t scales, std::uint32_t map, const Place& first, int steps,
                                             int rank)
      : task_(task),
        table_(table),
        ahead_(first),
        left_(steps),
        rank_(rank),
        lane_(static_cast<int>(threadIdx.x) % 32),
        warp_(static_cast<int>(threadIdx.x) / 32),
        own_codes_(codes + lane_ * (kTileFeatures / 2) + ((warp_ / 2) ^ (lane_ / 2 % 4)) * 16),
        select_(warp_ % 2 == 0 ? 0x6420 : 0x7531),
        scales_(scales),
        map_(map + 4 * (lane_ % kMapCopies)),
        offset_(task.scales.absmax == nullptr ? __ldg(task.scales.offset) : 0.0F) {
    load_scales();
    asm("" : "+r"(lane_), "+r"(own_codes_), "+r"(select_));  // kept, not computed again
  }

  /// Of the lane's sums of a tile the feature of those of row g.
  [[nodiscard]] __device__ __forceinline__ int own_feature() const {
    return warp_ / 2 * 32 + gradient_feature(warp_, lane_ / 4);
  }

  /// Gets the first step's scales.
  __device__ __forceinline__ void begin() { advance(); }

  /// Goes on to the next step: decodes the scales that were asked for, and asks for those of the step after.
  __device__ __forceinline__ void advance() {
    float values[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      values[i] = absmax_[i];
      if (nested()) {
        const float value = __uint_as_float(load_shared_u32(map_ + kMapCopies * sizeof(float) * codes_[i]));
        values[i] = nested_scale(value, absmax_[i], offset_);
      }
    }
    __syncwarp();  // until all lanes have read the step before
    // Lane t of a quad takes rows 2 t and 2 t + 1 of each 8.
    const std::uint32_t to =
        scales_ + 4 * (lane_ % 8 / 2 * kQuadScales + lane_ / 16 * 4 + lane_ % 16 / 8 * 2 + lane_ % 2);
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      store_shared_u32(to + 4 * (i / 2 * 4 * kQuadScales + i % 2 * 8), __float_as_uint(values[i]));
    }
    __syncwarp();
    load_scales();
  }

  /// Dequantizes a chunk of the step, whose codes are `offset` bytes behind those of the first stage, to the registers
  /// of its instructions: the lower pair of rows g and g + 8, then the upper one. A transposing load gives lane t of
  /// group g the four codes 4 g to 4 g + 3 of rows 2 t and 2 t + 1 of each 8; of these the warp takes two.
  __device__ __forceinline__ void prepare(int chunk, std::uint32_t offset,
                                          std::uint32_t (&weights)[kInstructions][4]) const {
    const std::uint32_t from = own_codes_ + offset + chunk * (kChunk * kTileFeatures / 2);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      std::uint32_t words[4];
      ldmatrix_transposed(words, from + half * (kChunk / 2 * kTileFeatures / 2));
      // One byte of each row: of the even rows of the four words, and of the odd ones.
      const std::uint32_t first = __byte_perm(words[0], words[1], select_);
      const std::uint32_t second = __byte_perm(words[2], words[3], select_);
      const std::uint32_t even = __byte_perm(first, second, 0x6420);
      const std::uint32_t odd = __byte_perm(first, second, 0x7531);
      // Places in the table: the even row's code, then the odd one's.
      const std::uint32_t g = (even & 0xF0F0F0F0U) | (odd >> 4 & 0x0F0F0F0FU);
      const std::uint32_t g8 = (even << 4 & 0xF0F0F0F0U) | (odd & 0x0F0F0F0FU);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float4 scale = scales(chunk, 2 * half + i);
        auto& to = weights[2 * half + i];
        to[0] = scale_pair<T>(table_(g, 2 * i), scale.x, scale.y);
        to[1] = scale_pair<T>(table_(g8, 2 * i), scale.x, scale.y);
        to[2] = scale_pair<T>(table_(g, 2 * i + 1), scale.z, scale.w);
        to[3] = scale_pair<T>(table_(g8, 2 * i + 1), scale.z, scale.w);
      }
    }
  }

 private:
  static constexpr int kLoads = kStep / 32;
  static constexpr int kQuadScales = 20;  // of a lane of a quad in a chunk: 16, and 4 so that four are in all banks

  [[nodiscard]] __device__ __forceinline__ bool nested() const {
    return task_.scales.absmax == nullptr;
  }

  /// Of the lane's rows of a chunk's matrix instruction: the lower two, then the upper two.
  [[nodiscard]] __device__ __forceinline__ float4 scales(int chunk, int instruction) const {
    const uint4 bits = load_shared_u32x4(scales_ + 4 * ((chunk * 4 + lane_ % 4) * kQuadScales + 4 * instruction));
    return make_float4(__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z),
                       __uint_as_float(bits.w));
  }

  __device__ __forceinline__ void load_scales() {
    if (left_-- <= 0) return;
    const int feature = task_.first_feature(ahead_.tile, rank_) + warp_ / 4 * 64;
    const int block_of_row = min(feature, task_.in_features - 1) >> task_.block_shift;
    const int blocks_a_row = task_.in_features >> task_.block_shift;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int row = min(ahead_.step * kStep + 32 * i + lane_, task_.out_features - 1);
      const std::int64_t block = static_cast<std::int64_t>(row) * blocks_a_row + block_of_row;
      if (nested()) {
        codes_[i] = __ldg(task_.scales.absmax_codes + block);
        absmax_[i] = __ldg(task_.scales.nested_absmax + block / kNestedBlocksize);
      } else {
        absmax_[i] = __ldg(task_.scales.absmax + block);
      }
    }
    ahead_.advance(task_.split);
  }

  const Task<T>& task_;
  FloatPairTable table_;
  Place ahead_;  // whose scales are asked for next
  int left_;     // steps from there on
  int rank_;
  int lane_;
  int warp_;
  std::uint32_t own_codes_;
  std::uint32_t select_;
  std::uint32_t scales_;
  std::uint32_t map_;
  float offset_;
  std::uint32_t codes_[kLoads] = {};
  float absmax_[kLoads] = {};
};

}  // namespace qshard::optimized::wide
