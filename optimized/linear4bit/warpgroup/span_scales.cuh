#pragma once

#include <cstdint>

#include "optimized/linear4bit/warpgroup/warpgroup_tiles.cuh"
#include "optimized/ptx/shared_access.cuh"

namespace qshard::optimized::warpgroup {

/// The scales of a warp's 16 rows for the steps of a span, in shared memory: [step][g][chunk][rows g and g + 8 of the
/// matrix instruction], g the lane's group. Lane t of a quad reads those of the span's steps 2 t and 2 t + 1 ahead and
/// decodes them. Row g + 8 of the instruction is the weight's row g ^ kOther.
template <typename Task, int kOther>
class SpanScales {
 public:
  /// own: where the lane's group g has its scales of a span's first step.
  __device__ __forceinline__ SpanScales(const Task& task, std::uint32_t map, std::uint32_t own)
      : task_(task), map_(map), own_(own), offset_(task.scales.nested() ? __ldg(task.scales.offset) : 0.0F) {}

  /// Requests the scales of the span that holds the step, where they are read ahead. row: g of the tile's rows.
  __device__ __forceinline__ void load(int row, int step) {
    row_ = row;
    k_ = (step / kSpanSteps * kSpanSteps + static_cast<int>(threadIdx.x) % 4 * 2) * kStep;
    if (task_.ahead == 0 || k_ >= task_.in_features) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t block = block_of(half, k_);
      const std::uint8_t* const codes = task_.scales.absmax_codes + block;
      nested_absmax_[half][0] = __ldg(task_.scales.nested_absmax + block / kNestedBlocksize);
      if (task_.ahead == 4) {
        codes_[half][0] = __ldg(reinterpret_cast<const std::uint32_t*>(codes));
        continue;
      }
      codes_[half][0] = __ldg(reinterpret_cast<const std::uint16_t*>(codes));
      if (k_ + kStep >= task_.in_features) continue;
      codes_[half][1] = __ldg(reinterpret_cast<const std::uint16_t*>(codes + kChunks));
      nested_absmax_[half][1] = __ldg(task_.scales.nested_absmax + (block + kChunks) / kNestedBlocksize);
    }
  }

  /// Decodes the span that load() requested, so that get() reads it.
  __device__ __forceinline__ void decode() {
    float values[2][4];
    if (task_.ahead > 0) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int half = i % 2;
        const std::uint32_t codes = codes_[half][0] | codes_[half][1] << 16;
        const float nested_absmax = i / 4 == 0 || task_.ahead == 4 ? nested_absmax_[half][0] : nested_absmax_[half][1];
        float value;
        asm("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(map_ + kMapStride * (codes >> (8 * (i / 2)) & 255U)));
        values[half][i / 2] = nested_scale(value, nested_absmax, offset_);
      }
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float value = task_.scales[block_of(i % 2, min(k_ + i / 2 * kChunk, task_.in_features - 1))];
        // A product with 1: so the value is waited for here, and not, with the loads of the next span, at the store.
        asm volatile("mul.rn.f32 %0, %1, 0f3F800000;" : "=f"(values[i % 2][i / 2]) : "f"(value));
      }
    }
    __syncwarp();  // until all lanes have read the span before
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(own_ + (threadIdx.x % 4 * 2 + step) * kStepBytes),
                   "f"(values[0][2 * step]), "f"(values[1][2 * step]), "f"(values[0][2 * step + 1]),
                   "f"(values[1][2 * step + 1])
                   : "memory");
    }
    __syncwarp();
  }

  /// Of the step: chunk 0's of rows g and g + 8, then chunk 1's.
  __device__ __forceinline__ float4 get(int step) const {
    float4 value;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
                 : "r"(own_ + (step & (kSpanSteps - 1)) * kStepBytes)
                 : "memory");
    return value;
  }

 private:
  static constexpr std::uint32_t kStepBytes = 8 * sizeof(float4);
  static constexpr std::uint32_t kMapStride = kMapCopies * sizeof(float);

  /// Of row g or, the other half, g + 8 of the instruction, or of the last row past the end.
  __device__ __forceinline__ std::int64_t block_of(int half, int k) const {
    const int row = min(row_ ^ kOther * half, task_.out_features - 1);
    return row * static_cast<std::int64_t>(task_.in_features >> task_.block_shift) + (k >> task_.block_shift);
  }

  const Task& task_;
  std::uint32_t map_;
  std::uint32_t own_;
  float offset_;
  int row_ = 0;
  int k_ = 0;
  // Of rows g and g + 8: four absmax codes and what they are scaled by, or of each step two and their own.
  std::uint32_t codes_[2][2] = {};
  float nested_absmax_[2][2] = {};
};

}  // namespace qshard::optimized::warpgroup
