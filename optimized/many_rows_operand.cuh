#pragma once

#include <cstdint>

#include "optimized/device_math.cuh"
#include "optimized/many_rows_tiles.cuh"
#include "optimized/shared_access.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// A step's dequantized weight as the matrix instructions take it, [columns of the output, inner dimension], in
// registers: the centroids by table look-up, their products with the scales rounded as dequantize() rounds them. Rows g
// and g + 8 of a warp's 16, g the lane's group of four, are two neighbouring columns of the output; column() is the
// first, counted from the warpgroup's.
namespace qshard::optimized {

using ManyRowsRegisters = std::uint32_t[kInstructions][4];

/// Of the forward product: two rows of the weight a lane. Of each word of codes, eight elements, lane t of a quad takes
/// byte t, as the instruction wants it from an input that lies in its own order.
template <typename T>
class ForwardOperand {
 public:
  __device__ __forceinline__ explicit ForwardOperand(std::uint32_t table)
      : table_(table),
        row_(static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4 * 2),
        byte_(FloatPairTable::select(static_cast<int>(threadIdx.x) % 4)) {
    asm("" : "+r"(row_), "+r"(byte_));  // kept, not computed again
  }

  [[nodiscard]] __device__ __forceinline__ int column() const { return row_ % kGroupColumns; }

  /// Asks for what look_up() takes.
  __device__ __forceinline__ void load(std::uint32_t codes, std::uint32_t scales) {
#pragma unroll
    for (int i = 0; i < 4; ++i) words_[i / 2][i % 2] = load_shared_quad(codes + row_ * (kStep / 2) + 16 * i);
    scale_ = load_shared_pair(scales + row_ * sizeof(float));
  }

  /// Asks for what rebuild() takes.
  __device__ __forceinline__ void look_up() {
#pragma unroll
    for (int i = 0; i < kInstructions; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint4& words = words_[j % 2][i / 2];
        const std::uint32_t word = i % 2 == 0 ? (j < 2 ? words.x : words.y) : (j < 2 ? words.z : words.w);
        centroids_[i][j] = table_(word, byte_);
      }
    }
  }

  __device__ __forceinline__ void rebuild(ManyRowsRegisters& operand) const {
#pragma unroll
    for (int i = 0; i < kInstructions; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float scale = j % 2 == 0 ? scale_.x : scale_.y;
        operand[i][j] = round_pair<T>(multiply_ftz(centroids_[i][j].x, scale), multiply_ftz(centroids_[i][j].y, scale));
      }
    }
  }

 private:
  FloatPairTable table_;
  int row_;
  std::uint32_t byte_;
  uint4 words_[2][2];
  float2 scale_;
  float2 centroids_[kInstructions][4];
};

/// Of the gradient: two columns of the weight a lane, one byte in each of its rows. A transposing load gives each lane
/// two bytes of two rows; of two neighbouring warps one takes the lower ones and one the upper ones.
template <typename T>
class GradientOperand {
 public:
  __device__ __forceinline__ explicit GradientOperand(std::uint32_t table) : table_(table) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    // 16-byte pieces of the codes' rows lie where the copy's 64-byte swizzle puts them.
    codes_ = lane * (kTileColumns / 2) + ((warp / 2) ^ (lane / 2 % 4)) * 16;
    scales_ = (warp / 4 * kStep + lane % 4 * 4) * sizeof(float);
    bytes_[0] = FloatPairTable::select(warp % 2);
    bytes_[1] = FloatPairTable::select(warp % 2 + 2);
    column_ = warp % 4 / 2 * 32 + lane / 4 * 4 + warp % 2 * 2;
    asm("" : "+r"(codes_), "+r"(scales_), "+r"(bytes_[0]), "+r"(bytes_[1]));  // kept, not computed again
  }

  [[nodiscard]] __device__ __forceinline__ int column() const { return column_; }

  /// Asks for what look_up() takes.
  __device__ __forceinline__ void load(std::uint32_t codes, std::uint32_t scales) {
#pragma unroll
    for (int i = 0; i < 2; ++i) load_transposed(words_[i], codes + codes_ + i * 32 * (kTileColumns / 2));
#pragma unroll
    for (int i = 0; i < kInstructions; ++i) {
      scale_[i] = load_shared_floats(scales + scales_ + i * 16 * sizeof(float));
    }
  }

  /// Asks for what rebuild() takes.
  __device__ __forceinline__ void look_up() {
#pragma unroll
    for (int i = 0; i < 2 * kInstructions; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) centroids_[i][j] = table_(words_[i / 4][i % 4], bytes_[j]);
    }
  }

  __device__ __forceinline__ void rebuild(ManyRowsRegisters& operand) const {
#pragma unroll
    for (int i = 0; i < 2 * kInstructions; ++i) {
      const float first = i % 2 == 0 ? scale_[i / 2].x : scale_[i / 2].z;
      const float second = i % 2 == 0 ? scale_[i / 2].y : scale_[i / 2].w;
      operand[i / 2][i % 2 * 2] =
          round_pair<T>(multiply_ftz(centroids_[i][0].x, first), multiply_ftz(centroids_[i][1].x, second));
      operand[i / 2][i % 2 * 2 + 1] =
          round_pair<T>(multiply_ftz(centroids_[i][0].y, first), multiply_ftz(centroids_[i][1].y, second));
    }
  }

 private:
  FloatPairTable table_;
  std::uint32_t codes_;   // of the lane, from a stage's first
  std::uint32_t scales_;  // likewise
  std::uint32_t bytes_[2];
  int column_;
  std::uint32_t words_[2][4];
  float4 scale_[kInstructions];
  float2 centroids_[2 * kInstructions][2];
};

}  // namespace qshard::optimized

#endif
