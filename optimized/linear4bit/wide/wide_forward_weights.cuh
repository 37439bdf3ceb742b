#pragma once

#include <cstdint>

#include "optimized/linear4bit/warpgroup/span_scales.cuh"
#include "optimized/linear4bit/wide/wide_tiles.cuh"
#include "optimized/ptx/shared_access.cuh"

namespace qshard::optimized::wide {

static_assert(kStep == warpgroup::kStep && kChunk == warpgroup::kChunk);

/// A warp's part of the weight, 16 of its rows, step by step along them.
template <typename T>
class ForwardWeights {
 public:
  /// Asks for the first scales. codes: of the first stage.
  __device__ __forceinline__ ForwardWeights(const Task<T>& task, unsigned char* table, std::uint32_t codes,
                                            std::uint32_t scales, std::uint32_t map, const Place& first, int /*steps*/,
                                            int rank)
      : task_(task),
        table_(table),
        at_(first),
        rank_(rank),
        own_feature_(static_cast<int>(threadIdx.x) / 32 * 16 + forward_feature(static_cast<int>(threadIdx.x) % 32 / 4)),
        own_codes_(codes + own_feature_ * (kStep / 2)),
        unit_(own_feature_ / 2 % 4 * 16),
        index_(FloatPairTable::index(threadIdx.x % 4)),
        scales_(task, map + 4 * (threadIdx.x % kMapCopies), scales + threadIdx.x % 32 / 4 * sizeof(float4)) {
    scales_.load(task_.first_feature(at_.tile, rank_) + own_feature_, at_.step);
    asm("" : "+r"(own_codes_), "+r"(unit_), "+r"(index_));  // kept, not computed again
  }

  /// Of the lane's sums of a tile the feature of those of row g.
  [[nodiscard]] __device__ __forceinline__ int own_feature() const { return own_feature_; }

  /// Gets the first step's scales.
  __device__ __forceinline__ void begin() { next_span(); }

  /// Goes on to the next step.
  __device__ __forceinline__ void advance() {
    at_.advance(task_.split);
    if (at_.step % warpgroup::kSpanSteps == 0) next_span();
  }

  /// Dequantizes a chunk of the step, whose codes are `offset` bytes behind those of the first stage, to the registers
  /// of its instructions: the lower pair of rows g and g + 8, then the upper one. A quad's lanes read the same words,
  /// and lane t takes byte t of each.
  __device__ __forceinline__ void prepare(int chunk, std::uint32_t offset,
                                          std::uint32_t (&weights)[kInstructions][4]) const {
    const float2 scale = scales_.get(at_.step, chunk);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t from = own_codes_ + offset + ((2 * chunk + half) * 16 ^ unit_);
      const uint4 low = load_shared_u32x4(from);
      const uint4 high = load_shared_u32x4(from ^ (kStep / 2));
      auto& first = weights[2 * half];
      auto& second = weights[2 * half + 1];
      first[0] = scale_pair<T>(table_.at(low.x, index_), scale.x, scale.x);
      first[1] = scale_pair<T>(table_.at(high.x, index_), scale.y, scale.y);
      first[2] = scale_pair<T>(table_.at(low.y, index_), scale.x, scale.x);
      first[3] = scale_pair<T>(table_.at(high.y, index_), scale.y, scale.y);
      second[0] = scale_pair<T>(table_.at(low.z, index_), scale.x, scale.x);
      second[1] = scale_pair<T>(table_.at(high.z, index_), scale.y, scale.y);
      second[2] = scale_pair<T>(table_.at(low.w, index_), scale.x, scale.x);
      second[3] = scale_pair<T>(table_.at(high.w, index_), scale.y, scale.y);
    }
  }

 private:
  /// Decodes the scales that were asked for, and asks for those of the span after.
  __device__ __forceinline__ void next_span() {
    scales_.decode();
    const int next = (at_.step / warpgroup::kSpanSteps + 1) * warpgroup::kSpanSteps;
    const bool same_tile = next < task_.split.steps;
    scales_.load(task_.first_feature(same_tile ? at_.tile : at_.tile + 1, rank_) + own_feature_, same_tile ? next : 0);
  }

  const Task<T>& task_;
  FloatPairTable table_;
  Place at_;
  int rank_;
  int own_feature_;
  std::uint32_t own_codes_;
  std::uint32_t unit_;
  std::uint32_t index_;
  warpgroup::SpanScales<Task<T>, 1> scales_;
};

}  // namespace qshard::optimized::wide
