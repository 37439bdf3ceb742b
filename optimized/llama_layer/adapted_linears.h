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

  /// h of the projections that share the input x, unless it is there.
  void down_to_ranks(Roles roles, const void* x) const;

  /// y, where h is there already; in one product where its kernel takes the adapter.
  void project(Projection role, const void* x, void* y, std::int64_t y_stride) const;

  /// Adds the gradients of B of the adapters of `roles`, which share one input and whose outputs' gradients are dys,
  /// and makes dx, that of the input, unless it is null. dx may not be one of dys. Returns g, the gradients of h; none
  /// where there is no adapter.
  [[nodiscard]] std::vector<Arena::Piece> backward(Roles roles, std::span<void* const> dys, std::int64_t dy_stride,
                                                   const Arena::Piece* dx) const;

  /// Adds the gradients of A, given the input x and what backward() returned.
  void backward_down(Roles roles, const void* x, std::span<const Arena::Piece> gs) const;

 private:
  [[nodiscard]] LoraInputShape input_shape(Projection role) const;
  [[nodiscard]] LoraOutputShape output_shape(Projection role) const;
  [[nodiscard]] std::size_t input_workspace_bytes(Roles roles) const;
  [[nodiscard]] void* h(Projection role) const;
  [[nodiscard]] Arena::Piece up_backward(Projection role, const void* dy, std::int64_t dy_stride) const;
  void input_gradient(Roles roles, std::span<void* const> dys, std::int64_t dy_stride, std::span<const Arena::Piece> gs,
                      void* dx) const;

  const LayerPass& pass_;
  TokenRange tokens_;
};

/// Elements of LayerActivations::lora_h.
[[nodiscard]] std::int64_t lora_h_elements(const LayerPass& pass);

}  // namespace qshard::optimized
