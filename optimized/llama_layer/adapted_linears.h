#pragma once

#include <span>
#include <vector>

#include "optimized/llama_layer/layer_pass.h"
#include "optimized/lora.h"

namespace qshard::optimized {

/// A layer's linear layers with their biases, adapters and the adapters' dropout masks, over some of a pass's tokens:
/// y = W x + b + scaling B h with h = dropout(x) A^T. All pointers are those of the first of these tokens.
class AdaptedLinears {
 public:
  using Roles = std::span<const Projection>;

  AdaptedLinears(const LayerPass& pass, TokenRange tokens) : pass_(pass), tokens_(tokens) {}

  /// h of the projections that share the input x.
  void down_to_ranks(Roles roles, const void* x) const;

  /// y, where h is there already; in one product where its kernel takes the adapter.
  void project(Projection role, const void* x, void* y, std::int64_t y_stride) const;

  /// Adds the gradients of the adapters of `roles`, which share the input x and whose outputs' gradients are dys, and
  /// makes dx, that of x, unless it is null. dx may not be one of dys.
  void backward(Roles roles, const void* x, std::span<void* const> dys, std::int64_t dy_stride,
                const Arena::Piece* dx) const;

 private:
  [[nodiscard]] LoraInputShape input_shape(Projection role) const;
  [[nodiscard]] LoraOutputShape output_shape(Projection role) const;
  [[nodiscard]] std::size_t input_workspace_bytes(Roles roles) const;
  [[nodiscard]] void* h(Projection role) const;
  [[nodiscard]] Arena::Piece up_backward(Projection role, const void* dy, std::int64_t dy_stride) const;
  void down_backward(Roles roles, const void* x, std::span<const LoraInputGradient> adapters) const;
  [[nodiscard]] std::vector<LoraInputGradient> input_gradient(Roles roles, std::span<void* const> dys,
                                                              std::int64_t dy_stride,
                                                              std::span<const LoraInputGradient> adapters,
                                                              void* dx) const;

  const LayerPass& pass_;
  TokenRange tokens_;
};

}  // namespace qshard::optimized
