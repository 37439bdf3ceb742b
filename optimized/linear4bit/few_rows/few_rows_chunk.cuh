#pragma once

#include "optimized/linear4bit/few_rows/few_rows_tiles.cuh"
#include "optimized/linear4bit/pair_table.cuh"
#include "optimized/ptx/matrix_instruction.cuh"
#include "optimized/ptx/prefetch.cuh"
#include "optimized/ptx/shared_access.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::few_rows {

/// Columns of the matrix instruction for each group of 64 elements: the rows of x, or of a single one its elements for
/// either half of a tile whose halves lie beside each other.
template <int kRows>
inline constexpr int kColumns = kBeside<kRows> ? 2 : kRows;

/// This lane's part of the rows of x for a warp's chunk, as second operands of the matrix instructions. Their eight
/// columns are those of 8 / kColumns groups: column (group % kGroups) * kColumns + row holds the row's elements of that
/// group, so that each column's sum gets its own block's scale.
template <typename T, int kRows>
class InputChunk {
 public:
  static constexpr int kGroups = 8 / kColumns<kRows>;  // of 64 elements that one sum keeps apart
  static constexpr int kSums = kChunkGroups / kGroups;
  static constexpr bool kAhead = kRows <= 2;  // loaded a segment ahead; more rows would take too many registers

  __device__ __forceinline__ explicit InputChunk(const Task<T>& task) : in_features_(task.in_features) {
    const int column = static_cast<int>(threadIdx.x % 32 / 4);
    const int row = kBeside<kRows> ? 0 : column % kRows;
    const int half = kBeside<kRows> ? column % 2 : 0;
    held_ = row < task.rows;
    first_ = half * task.tiles.warps_a_row * kChunk + column / kColumns<kRows> * kGroupElements;
    x_ = task.x + (held_ ? row * task.x_stride : 0) + threadIdx.x % 4 * 16;
  }

  /// Brings x to the L2 cache, before earlier kernels are done: see prefetch_to_l2(). Each thread block asks for one in
  /// kAskers lines, so that of several the one that begins first gets a line there, and the L2 cache is not asked for
  /// all of them by all. Of fewer than kAskers thread blocks some lines are left out.
  __device__ __forceinline__ static void prefetch(const Task<T>& task) {
    constexpr int kAskers = 8;
    constexpr int kLineElements = 64;
    const int k = static_cast<int>(threadIdx.x * kAskers + blockIdx.x % kAskers) * kLineElements;
    if (k >= task.in_features) return;
    for (int row = 0; row < task.rows; ++row) prefetch_to_l2(task.x + row * task.x_stride + k);
  }

  /// Requests what use() takes later; zeros where x has no such row or column.
  __device__ __forceinline__ void load(int chunk) {
#pragma unroll
    for (int sum = 0; sum < kSums; ++sum) {
      const auto* const from = reinterpret_cast<const uint4*>(x_ + place(sum, chunk));
#pragma unroll
      for (int i = 0; i < 2; ++i) next_[sum][i] = inside(sum, chunk) ? from[i] : uint4{};
    }
  }

  __device__ __forceinline__ void use() {
#pragma unroll
    for (int sum = 0; sum < kSums; ++sum) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        words_[sum][4 * i] = next_[sum][i].x;
        words_[sum][4 * i + 1] = next_[sum][i].y;
        words_[sum][4 * i + 2] = next_[sum][i].z;
        words_[sum][4 * i + 3] = next_[sum][i].w;
      }
    }
  }

  /// Words `i` of the lane's sixteen elements of its group among those of a sum.
  __device__ __forceinline__ std::uint32_t word(int sum, int i) const {
    return words_[sum][i];
  }

 private:
  __device__ __forceinline__ int place(int sum, int chunk) const {
    return chunk * kChunk + sum * kGroups * kGroupElements + first_;
  }

  __device__ __forceinline__ bool inside(int sum, int chunk) const {
    return held_ && place(sum, chunk) < in_features_;
  }

  bool held_;
  int first_;  // of the elements of the lane's column in a chunk
  int in_features_;
  const T* x_;
  uint4 next_[kSums][2];
  std::uint32_t words_[kSums][8];
};

/// Where a lane finds its codes in a warp's chunk of eight rows, which were copied whole or in pieces of half a chunk.
/// A chunk begins at a multiple of 1024 bytes.
struct LaneCodes {
  std::uint32_t first;  // of the lane's 8 bytes of group 0 in the chunk
  std::uint32_t half;   // what groups 2 and 3 differ by

  __device__ __forceinline__ explicit LaneCodes(bool halves) {
    const auto row = static_cast<std::uint32_t>(swizzled_row(static_cast<int>(threadIdx.x % 32 / 4)));
    const std::uint32_t quarter = threadIdx.x % 4;
    // Pieces of 16 bytes lie where the copy's swizzle puts them.
    half = (halves ? kHalfRows : 1) * (kChunkBytes / 2);
    first = (halves ? row * (kChunkBytes / 2) + (quarter / 2 ^ row / 2) * 16
                    : row * kChunkBytes + (quarter / 2 ^ row) * 16) +
            quarter % 2 * 8;
  }

  /// The address of a group's codes, from that of group 0.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t of_group(std::uint32_t first_group, int group) const {
    return first_group ^ static_cast<std::uint32_t>(group % 2) * 32 ^ (group < 2 ? 0 : half);
  }
};

/// A warp's part of a tile times the rows of x. `codes`: the address of this lane's codes of group 0; those of the
/// second half are half_bytes further. Lane 4 * g + t holds a quarter of every group of 64 elements of row
/// swizzled_row(g) of either half; sums[s][i] is of half i / 2 and column 2 * t + i % 2. A group of the weight is
/// multiplied with every column, and only the columns of the same group of x are kept.
template <typename T, int kRows>
__device__ __forceinline__ void multiply_chunk(float (&sums)[InputChunk<T, kRows>::kSums][4], std::uint32_t codes,
                                               int half_bytes, const LaneCodes& lane_codes, const PairTable& table,
                                               const InputChunk<T, kRows>& input) {
  using Input = InputChunk<T, kRows>;
  const int kept_group = 2 * (static_cast<int>(threadIdx.x % 4)) / kColumns<kRows>;
#pragma unroll
  for (int group = 0; group < kChunkGroups; ++group) {
    const std::uint32_t place = lane_codes.of_group(codes, group);
    const uint2 low = load_shared_u32x2(place);
    const uint2 high = load_shared_u32x2(place + half_bytes);
    const int sum = group / Input::kGroups;
    float product[4] = {};
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const std::uint32_t low_word = s < 2 ? low.x : low.y;
      const std::uint32_t high_word = s < 2 ? high.x : high.y;
      const int byte = 2 * s % 4;
      mma_m16n8k16<T>(product, table(low_word, byte), table(high_word, byte), table(low_word, byte + 1),
                      table(high_word, byte + 1), input.word(sum, 2 * s), input.word(sum, 2 * s + 1));
    }
    const bool kept = group % Input::kGroups == kept_group;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (group % Input::kGroups == 0 || kept) sums[sum][i] = product[i];
    }
  }
}

}  // namespace qshard::optimized::few_rows

#endif
