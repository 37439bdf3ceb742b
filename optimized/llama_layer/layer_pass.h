#pragma once

#include <cstddef>
#include <cstdint>

#include "optimized/llama_layer.h"
#include "optimized/rmsnorm.h"

namespace qshard::optimized {

/// Some of a pass's tokens: the feed-forward half works on one tile of them after the other.
struct TokenRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
};

/// One pass over one layer: what both of its halves work with. Pieces hold elements of the activations' dtype.
struct LayerPass {
  const StepResources& resources;
  const LayerContext& context;
  const LayerWeights& weights;
  LayerActivations& kept;
  bool makes_lora_h = false;  // otherwise it is there

  [[nodiscard]] const ModelConfig& config() const { return *context.config; }
  [[nodiscard]] std::int64_t hidden() const { return config().hidden_size; }
  [[nodiscard]] TokenRange all_tokens() const { return {0, context.rows->tokens}; }

  [[nodiscard]] const LinearPointers& linear(Projection role) const {
    return weights.projections[static_cast<std::size_t>(role)];
  }
  /// What the first `projections` have in a piece that holds rows of all tokens for each projection, one's behind the
  /// other's; stride_of(linear): of one row.
  template <typename StrideOf>
  [[nodiscard]] std::int64_t size_of_first(std::size_t projections, const StrideOf& stride_of) const {
    std::int64_t size = 0;
    for (std::size_t i = 0; i < projections; ++i) size += all_tokens().count * stride_of(weights.projections[i]);
    return size;
  }

  [[nodiscard]] Arena::Piece take(std::int64_t elements, const char* name) const {
    return resources.arena->take(elements * element_bytes(), name);
  }
  [[nodiscard]] Arena::Piece take_workspace(std::size_t bytes) const {
    return resources.arena->take(static_cast<std::int64_t>(bytes), "workspace");
  }

  /// Element `offset` of an array; null in a dry run.
  [[nodiscard]] void* at(void* array, std::int64_t offset) const {
    return resources.dry_run() ? nullptr : static_cast<std::byte*>(array) + offset * element_bytes();
  }
  [[nodiscard]] void* at(const Arena::Piece& piece, std::int64_t offset) const { return at(piece.as(), offset); }

  /// The norms before attention and before the feed-forward half.
  [[nodiscard]] NormShape hidden_norm(std::int64_t tokens) const {
    return {tokens, 1, hidden(), hidden(), hidden(), config().rms_norm_eps, context.dtype};
  }

 private:
  [[nodiscard]] std::int64_t element_bytes() const { return static_cast<std::int64_t>(size_of(context.dtype)); }
};

}  // namespace qshard::optimized
