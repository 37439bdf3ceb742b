#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

// Low-rank adapters y += scaling * B A dropout(x) (arXiv 2106.09685), rounded where reference/lora.h rounds. Names as
// there: x [tokens, in], A [r, in], h = dropout(x) A^T [tokens, r], B [out, r], y [tokens, out], d = scaling dy,
// g = d B [tokens, r].
//
// A layer's forward pass: dropout_masks(), then for each input lora_down() and for each projection lora_up_add(). Its
// backward pass: lora_up_backward() for each projection, then for each input lora_down_backward() and, once dx holds
// the frozen layers' part, lora_input_gradient(). A frozen layer's product may have h B^T or g A in it already
// (Linear4bitPlan::adds()); it rounds y or dx once where lora_up_add() and lora_input_gradient() round three times
// more.
//
// For all functions: pointers are device memory, row-major, aligned to their element; A, B, dA and dB are contiguous.
// f16 and bf16 run on tensor cores with float sums, and fast where x, y, A, B and their strides are multiples of 16
// bytes and r is a multiple of 8; everything else takes the same path element by element, and f32 plain kernels
// (correct, not tuned). Nothing is allocated and nothing synchronized; all is ordered with `stream` and may be captured
// into a graph. Nothing is launched for 0 tokens. Deterministic run to run: no atomic operations; sums that are split
// are cut by the shape alone and added in the order of their slices. Errors: Error(bad_input) for bad sizes, strides,
// dtypes, pointers or too small a workspace, Error(rank_failed) when a launch fails.
namespace qshard::optimized {

inline constexpr std::int64_t kMostLoraRank = 256;
/// Projections that share one input at most: q, k and v.
inline constexpr std::size_t kMostSharedInputs = 3;

/// Elements from one token of h or g to the next. What lies behind the r-th is written as 0 and read.
constexpr std::int64_t lora_rank_stride(std::int64_t rank) {
  return (rank + 7) / 8 * 8;
}

/// The input side of the projections that share an input x.
struct LoraInputShape {
  std::int64_t tokens = 0;
  std::int64_t in_features = 0;
  DType dtype = DType::bf16;  // of x, A, h, g and dx: f32, f16 or bf16
  double dropout = 0;         // probability, at least 0 and below 1
};

/// The output side of one projection.
struct LoraOutputShape {
  std::int64_t tokens = 0;
  std::int64_t out_features = 0;
  std::int64_t rank = 0;      // 1 to kMostLoraRank
  DType dtype = DType::bf16;  // of y, dy, B, h and g
  double scaling = 1;
};

/// Device memory for one call of lora_down() or lora_down_backward() with projections of these ranks and up to so many
/// tokens, in bytes: room for partial sums.
std::size_t lora_input_workspace_bytes(const LoraInputShape& shape, std::span<const std::int64_t> ranks);
/// The same for lora_up_backward().
std::size_t lora_output_workspace_bytes(const LoraOutputShape& shape);

/// One projection of lora_down().
struct LoraDown {
  const void* a = nullptr;  // [rank, in]
  std::int64_t rank = 0;
  const std::uint8_t* mask = nullptr;  // as dropout_masks() writes it; null exactly where dropout is 0
  void* h = nullptr;                   // [tokens, lora_rank_stride(rank)], aligned to 16 bytes
};

/// h = round(dropout(x) A^T) for up to kMostSharedInputs projections, each with its own mask; dropout(x) is
/// x / (1 - probability) where kept, else 0. The factor multiplies each sum in float (16-bit dtypes), where the
/// reference multiplies and rounds each x. Reads x once (16-bit dtypes). workspace:
/// lora_input_workspace_bytes(), aligned to 16 bytes.
void lora_down(const LoraInputShape& shape, const void* x, std::int64_t x_stride, std::span<const LoraDown> projections,
               void* workspace, std::size_t workspace_bytes, cudaStream_t stream);

/// y = round(y + round(scaling * round(h B^T))), in place. Reads and writes y once.
void lora_up_add(const LoraOutputShape& shape, const void* h, const void* b, void* y, std::int64_t y_stride,
                 cudaStream_t stream);

/// g = round(d B) and dB += d^T h with d = scaling * dy, where scaling multiplies each sum in float (16-bit dtypes).
/// db: [out, rank] in float, not rounded. dy is read twice, one time after the other. g: [tokens,
/// lora_rank_stride(rank)], aligned to 16 bytes as h is. workspace: lora_output_workspace_bytes(), aligned to 16 bytes.
void lora_up_backward(const LoraOutputShape& shape, const void* dy, std::int64_t dy_stride, const void* h,
                      const void* b, void* g, float* db, void* workspace, std::size_t workspace_bytes,
                      cudaStream_t stream);

/// One projection of lora_down_backward().
struct LoraDownBackward {
  const void* g = nullptr;  // [tokens, lora_rank_stride(rank)], aligned to 16 bytes
  std::int64_t rank = 0;
  const std::uint8_t* mask = nullptr;  // as in LoraDown
  float* da = nullptr;                 // [rank, in]
};

/// dA += g^T dropout(x) for up to kMostSharedInputs projections, in float and not rounded. Reads x once (16-bit
/// dtypes). workspace: lora_input_workspace_bytes(), aligned to 16 bytes.
void lora_down_backward(const LoraInputShape& shape, const void* x, std::int64_t x_stride,
                        std::span<const LoraDownBackward> projections, void* workspace, std::size_t workspace_bytes,
                        cudaStream_t stream);

/// One projection of lora_input_gradient().
struct LoraInputGradient {
  const void* g = nullptr;  // as in LoraDownBackward
  const void* a = nullptr;  // [rank, in]
  std::int64_t rank = 0;
  const std::uint8_t* mask = nullptr;  // as in LoraDown
};

/// dx += the sum of dropout(round(g A)) over the projections, in their order, in place; dropout is that of lora_down().
/// The sum is kept in float and rounded once, where the reference rounds after each addition: of n projections, n - 1
/// roundings of a partial sum (half a unit in its last place each) are left out. dx is read and written once, or once
/// for each group of projections whose weights [ceil(rank / 32) * 32, 128] fit in 96 KiB of shared memory together
/// (three of rank 128; one of rank 256). f32: the same sum.
void lora_input_gradient(const LoraInputShape& shape, std::span<const LoraInputGradient> projections, void* dx,
                         std::int64_t dx_stride, cudaStream_t stream);

}  // namespace qshard::optimized
