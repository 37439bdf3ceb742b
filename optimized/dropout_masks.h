#pragma once

#include <cstdint>
#include <span>

#include <cuda_runtime_api.h>

#include "optimized/dropout.h"

namespace qshard::optimized {

/// Bytes from one token's mask to the next: a bit a feature, padded so that every token's mask begins on 16 bytes.
constexpr std::int64_t dropout_mask_stride(std::int64_t features) {
  return (features + 127) / 128 * 16;
}

/// Projections whose masks one call of dropout_masks() makes at most: those of a layer.
inline constexpr std::int64_t kMostDropoutMasks = 7;

/// Where the mask of one projection goes.
struct DropoutMaskBits {
  std::uint32_t projection = 0;  // as in DropoutMask
  std::int64_t features = 0;
  std::uint8_t* bits = nullptr;  // [tokens, dropout_mask_stride(features)], aligned to 16 bytes
};

/// Throws Error(bad_input) as check_dropout() for each mask, for probability 0 (which needs no mask), more than
/// kMostDropoutMasks masks and bad pointers.
void check_dropout_masks(const DropoutMask& common, std::span<const DropoutMaskBits> masks);

/// The masks of reference::dropout as bits: bit f % 8 of byte f / 8 of a token says that its feature f is kept; bits
/// past the features are 0. Seed, step, layer and probability (above 0) are those of `common`, the projection is each
/// mask's own. Kept for a layer, they cost Philox once, where forward pass, dA and dx would each make them again:
/// a sixteenth of the bytes of 16-bit activations.
///
/// Of `rows`, positions, row_of and row_ids are read. One launch on `stream`, none for 0 tokens or no masks; nothing is
/// allocated and nothing synchronized. Deterministic: elementwise. Throws Error(bad_input) as
/// check_dropout_masks() and for bad rows, Error(rank_failed) when the launch fails.
void dropout_masks(const DropoutMask& common, const TokenRows& rows, std::span<const DropoutMaskBits> masks,
                   cudaStream_t stream);

}  // namespace qshard::optimized
