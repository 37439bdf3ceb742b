#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/shared_access.cuh"
#include "optimized/stage_counter.cuh"

// How linear4bit_many.cu cuts a product out = in op(W): the forward one, whose output columns are the weight's rows,
// and the gradient, whose output columns are the weight's columns. A thread block makes tiles of 256 rows by 128
// columns of the output, in steps of 64 along the inner dimension, each one stage of shared memory. Two thread blocks,
// a cluster, make neighbouring tiles of the same rows at the same time and load `in` for both.
namespace qshard::optimized {

constexpr int kWarpgroups = 2;                   // that multiply
constexpr int kMultipliers = 128 * kWarpgroups;  // their threads
constexpr int kMultiplierWarps = kMultipliers / 32;
constexpr int kThreads = kMultipliers + 128;  // and one warpgroup that loads
constexpr int kCluster = 2;
constexpr int kTileRows = 256;
constexpr int kGroupColumns = 64;  // of a warpgroup
constexpr int kTileColumns = kGroupColumns * kWarpgroups;
constexpr int kClusterColumns = kTileColumns * kCluster;
constexpr int kStep = 64;
constexpr int kInstructions = kStep / 16;
constexpr int kRasterRows = 8;  // tiles of rows that are made side by side, so that they share the weight in the cache

/// Scales spread out, so that a step's are copied at once: [padded columns / 64][padded rows] of the weight, one for
/// every 64 elements of a row, zeros beyond the weight.
struct SpreadScales {
  std::int64_t rows;   // of the weight, padded
  std::int64_t lines;  // 64 columns of the weight each, padded

  SpreadScales(std::int64_t out_features, std::int64_t in_features)
      : rows(block_count(out_features, kClusterColumns) * kClusterColumns),
        lines(block_count(in_features, kClusterColumns) * (kClusterColumns / kStep)) {}

  [[nodiscard]] std::int64_t count() const { return rows * lines; }
};

/// Arguments of the kernel, but for its tensor maps.
struct ManyRowsTask {
  const float* scales;
  SpreadScales layout;
  CodebookValues codebook;
  int steps;  // even: the last one may be of zeros
  int row_tiles;
  int column_tiles;  // kClusterColumns each

  [[nodiscard]] __host__ __device__ int tiles() const { return row_tiles * column_tiles; }
  /// Of all tiles of this thread block.
  [[nodiscard]] __device__ __forceinline__ int all_steps() const {
    const int clusters = static_cast<int>(gridDim.x) / kCluster;
    const int first = static_cast<int>(blockIdx.x) / kCluster;
    return (tiles() - first + clusters - 1) / clusters * steps;
  }
};

/// The output's tile of a cluster.
struct ManyRowsPlace {
  int row;
  int column;

  __device__ __forceinline__ ManyRowsPlace(const ManyRowsTask& task, int tile) {
    const int raster = tile / (kRasterRows * task.column_tiles);
    const int first = raster * kRasterRows;
    const int rows = min(kRasterRows, task.row_tiles - first);
    const int rest = tile - first * task.column_tiles;
    row = (first + rest % rows) * kTileRows;
    column = rest / rows * kClusterColumns;
  }
};

/// Every pair of centroids as two floats, of the high nibble and the low one, sixteen times: the lanes of half a warp
/// each read a copy of their own, so that no look-up waits for another. Byte b of packed codes is row b, 128 bytes.
class FloatPairTable {
 public:
  static constexpr std::uint32_t kBytes = 256 * 128;

  __device__ __forceinline__ explicit FloatPairTable(std::uint32_t memory) : own_(memory + threadIdx.x % 16 * 8) {
    asm("" : "+r"(own_));  // kept, not computed again
  }

  /// By all threads of the block.
  __device__ __forceinline__ static void fill(std::uint32_t memory, const CodebookValues& codebook) {
    for (int i = static_cast<int>(threadIdx.x); i < 256 * 8; i += kThreads) {
      const float high = codebook.value[i / 8 / 16];
      const float low = codebook.value[i / 8 % 16];
      store_shared(memory + 16 * i, make_float4(high, low, high, low));
    }
  }

  /// Of the byte of `word` that `selector` from select() names. Issued in the order of the calls.
  __device__ __forceinline__ float2 operator()(std::uint32_t word, std::uint32_t selector) const {
    std::uint32_t row;
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(row) : "r"(word), "r"(selector));
    return load_shared_pair(row * 128 + own_);
  }

  __device__ __forceinline__ static std::uint32_t select(int byte) { return 0x4440 + byte; }

 private:
  std::uint32_t own_;
};

/// Shared memory by address: the stages' inputs, room for the output, the table, the stages' codes and scales, and the
/// barriers.
struct ManyRowsShared {
  static constexpr int kStages = 4;
  static constexpr std::uint32_t kInputBytes = kTileRows * kStep * 2;
  static constexpr std::uint32_t kHalfInputBytes = kInputBytes / kCluster;  // that each of the cluster loads
  static constexpr std::uint32_t kCodeBytes = kTileColumns * kStep / 2;
  static constexpr std::uint32_t kScaleBytes = kTileColumns * sizeof(float);
  static constexpr std::uint32_t kStageBytes = kInputBytes + kCodeBytes + kScaleBytes;
  static constexpr int kOutputRows = kTileRows / 2;  // that a warpgroup stores at once
  static constexpr std::uint32_t kOutputBytes = kOutputRows * kGroupColumns * 2;
  static constexpr std::uint32_t kBytes =
      kStages * kStageBytes + kWarpgroups * kOutputBytes + FloatPairTable::kBytes + 2 * kStages * 8;

  std::uint32_t first;  // aligned to 1024 bytes

  __device__ __forceinline__ std::uint32_t input(int stage) const { return first + stage * kInputBytes; }
  __device__ __forceinline__ std::uint32_t output(int warpgroup) const {
    return input(kStages) + warpgroup * kOutputBytes;
  }
  __device__ __forceinline__ std::uint32_t table() const { return output(kWarpgroups); }
  __device__ __forceinline__ std::uint32_t codes(int stage) const {
    return table() + FloatPairTable::kBytes + stage * kCodeBytes;
  }
  __device__ __forceinline__ std::uint32_t scales(int stage) const { return codes(kStages) + stage * kScaleBytes; }
  __device__ __forceinline__ std::uint32_t full(int stage) const { return scales(kStages) + 8 * stage; }
  __device__ __forceinline__ std::uint32_t empty(int stage) const { return full(kStages + stage); }
};

using ManyRowsStage = StageCounter<ManyRowsShared::kStages>;

}  // namespace qshard::optimized
