#pragma once

#include <type_traits>

#include "optimized/quantize_run.cuh"
#include "optimized/threshold_sums.h"
#include "optimized/threshold_table.h"

// The codes of a run of elements by look-ups in a table of which each lane of the warp holds a cell: a shuffle reads
// the cell's row, for it takes the lane from the lowest five bits of its operand and so needs no address.
namespace qshard::optimized {

template <bool kNf4>
__device__ constexpr ThresholdTable kThresholdTable = ThresholdTable::make<kNf4>();
__device__ constexpr ThresholdSums kThresholdSums = ThresholdSums::make();

/// sum += addend where a > b, without a branch.
__device__ __forceinline__ void add_if_above(std::uint32_t& sum, float a, float b, std::uint32_t addend) {
  asm("{.reg .pred above; setp.gt.f32 above, %1, %2; @above add.u32 %0, %0, %3;}"
      : "+r"(sum)
      : "f"(a), "f"(b), "r"(addend));
}

/// Codes are made from the highest nibble of a run's word down: the element of nibble `place`, counted from above. In
/// each byte the element with the even index is the high nibble.
__device__ constexpr int element_at(int place) {
  return kRun - 2 - place / 2 * 2 + place % 2;
}

/// ThresholdTable across the lanes of a warp.
template <bool kNf4>
class ThresholdLookup {
 public:
  __device__ __forceinline__ ThresholdLookup()
      : threshold_(kThresholdTable<kNf4>.threshold[threadIdx.x % 32]),
        below_(kThresholdTable<kNf4>.below[threadIdx.x % 32]) {}

  /// The codes of a run whose block has this absmax. All lanes of the warp call it.
  template <typename T>
  __device__ __forceinline__ std::uint32_t codes(const Run<T>& run, float absmax) const {
    const float reciprocal = reciprocal_ftz(absmax);
    std::uint32_t word = 0;
#pragma unroll
    for (int place = 0; place < kRun; ++place) {
      const float scaled = multiply_ftz(run[element_at(place)], reciprocal);
      const auto cell = static_cast<int>(ThresholdTable::cell_bits<kNf4>(scaled));
      std::uint32_t count = __shfl_sync(0xFFFFFFFFU, below_, cell);
      add_if_above(count, kNf4 ? scaled : fabsf(scaled), __shfl_sync(0xFFFFFFFFU, threshold_, cell), 1U << 28);
      if constexpr (!kNf4) add_if_above(count, 0.0F, scaled, 8U << 28);
      word = __funnelshift_l(count, word, 4);
    }
    return kNf4 ? word : fp4_codes(word);
  }

 private:
  float threshold_;
  std::uint32_t below_;
};

/// ThresholdSums across the lanes of a warp.
class ThresholdSumLookup {
 public:
  __device__ __forceinline__ ThresholdSumLookup() : addend_(kThresholdSums.addend[threadIdx.x % 32]) {}

  /// The codes of a run whose block has this absmax, for NF4. All lanes of the warp call it.
  __device__ __forceinline__ std::uint32_t codes(const Run<__nv_bfloat16>& run, float absmax) const {
    const float multiplier = multiply_ftz(reciprocal_ftz(absmax), ThresholdSums::kScale);
    std::uint32_t word = 0;
#pragma unroll
    for (int place = 0; place < kRun; ++place) {
      const float x = run[element_at(place)];
      const auto cell = static_cast<int>(ThresholdSums::cell_bits(x, multiplier));
      const std::uint32_t addend = __shfl_sync(0xFFFFFFFFU, addend_, cell);
      word = __funnelshift_l(ThresholdSums::position_bits(x, multiplier) + addend, word, 4);
    }
    return word;
  }

 private:
  std::uint32_t addend_;
};

template <typename T, bool kNf4>
using CodeLookup =
    std::conditional_t<kNf4 && std::is_same_v<T, __nv_bfloat16>, ThresholdSumLookup, ThresholdLookup<kNf4>>;

}  // namespace qshard::optimized
