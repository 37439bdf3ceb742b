#include "optimized/llama_layer/adapted_linears.h"

#include "optimized/add.h"
#include "optimized/llama_layer/layer_masks.h"

namespace qshard::optimized {

namespace {

/// Elements of h of the first `projections`: where the next one's lies in the piece of all.
std::int64_t lora_h_elements(const LayerPass& pass, std::size_t projections) {
  return pass.size_of_first(projections,
                            [](const LinearPointers& linear) { return lora_rank_stride(linear.lora.rank); });
}

}  // namespace

std::int64_t lora_h_elements(const LayerPass& pass) {
  return lora_h_elements(pass, kProjections);
}

LoraInputShape AdaptedLinears::input_shape(Projection role) const {
  return {tokens_.count, pass_.linear(role).weight.in, pass_.context.dtype, pass_.context.lora_dropout};
}

LoraOutputShape AdaptedLinears::output_shape(Projection role) const {
  const LinearPointers& of = pass_.linear(role);
  return {tokens_.count, of.weight.out, of.lora.rank, pass_.context.dtype, of.lora.scaling};
}

/// Workspace of lora_down() and lora_down_backward() over those of `roles` that have an adapter.
std::size_t AdaptedLinears::input_workspace_bytes(Roles roles) const {
  std::vector<std::int64_t> ranks;
  for (const Projection role : roles) {
    const std::int64_t rank = pass_.linear(role).lora.rank;
    if (rank > 0) ranks.push_back(rank);
  }
  return lora_input_workspace_bytes(input_shape(roles[0]), ranks);
}

void* AdaptedLinears::h(Projection role) const {
  const std::int64_t first = tokens_.first * lora_rank_stride(pass_.linear(role).lora.rank);
  return pass_.at(pass_.kept.lora_h, lora_h_elements(pass_, static_cast<std::size_t>(role)) + first);
}

void AdaptedLinears::down_to_ranks(Roles roles, const void* x) const {
  if (!pass_.makes_lora_h) return;
  std::vector<LoraDown> downs;
  for (const Projection role : roles) {
    const LoraPointers& lora = pass_.linear(role).lora;
    if (lora.rank > 0) downs.push_back({lora.a, lora.rank, layer_mask(pass_, role, tokens_.first), h(role)});
  }
  if (downs.empty()) return;
  const LoraInputShape shape = input_shape(roles[0]);
  const std::size_t bytes = input_workspace_bytes(roles);
  const Arena::Piece workspace = pass_.take_workspace(bytes);
  pass_.resources.launch(
      [&] { lora_down(shape, x, shape.in_features, downs, workspace.as(), bytes, pass_.resources.stream); });
}

void AdaptedLinears::project(Projection role, const void* x, void* y, std::int64_t y_stride) const {
  const StepResources& resources = pass_.resources;
  const LinearPointers& of = pass_.linear(role);
  const LoraPointers& lora = of.lora;
  const ConstRows in{x, of.weight.in};
  const MutableRows out{y, y_stride};
  const Linear4bitAdapter adapter{lora.rank, h(role), lora_rank_stride(lora.rank), lora.b, lora.scaling, nullptr};
  const bool adapted =
      lora.rank > 0 && frozen_linear_with(resources, of.weight, tokens_.count, in, out, {adapter, false});
  if (!adapted) frozen_linear(resources, of.weight, tokens_.count, in, out);
  resources.launch([&] {
    if (of.bias != nullptr) {
      add_bias({tokens_.count, of.weight.out, y_stride, pass_.context.dtype}, of.bias, y, resources.stream);
    }
    if (lora.rank > 0 && !adapted) lora_up_add(output_shape(role), h(role), lora.b, y, y_stride, resources.stream);
  });
}

std::vector<Arena::Piece> AdaptedLinears::backward(Roles roles, std::span<void* const> dys, std::int64_t dy_stride,
                                                   const Arena::Piece* dx) const {
  std::vector<Arena::Piece> gs(roles.size());
  for (std::size_t i = 0; i < roles.size(); ++i) {
    if (pass_.linear(roles[i]).lora.rank > 0) gs[i] = up_backward(roles[i], dys[i], dy_stride);
  }
  if (dx != nullptr) input_gradient(roles, dys, dy_stride, gs, dx->as());
  return gs;
}

/// Adds the gradient of B and returns g, the gradient of h.
Arena::Piece AdaptedLinears::up_backward(Projection role, const void* dy, std::int64_t dy_stride) const {
  const LoraPointers& lora = pass_.linear(role).lora;
  const LoraOutputShape shape = output_shape(role);
  Arena::Piece g = pass_.take(tokens_.count * lora_rank_stride(lora.rank), "activations");
  const std::size_t bytes = lora_output_workspace_bytes(shape);
  const Arena::Piece workspace = pass_.take_workspace(bytes);
  pass_.resources.launch([&] {
    lora_up_backward(shape, dy, dy_stride, h(role), lora.b, g.as(), lora.b_gradient, workspace.as(), bytes,
                     pass_.resources.stream);
  });
  return g;
}

void AdaptedLinears::backward_down(Roles roles, const void* x, std::span<const Arena::Piece> gs) const {
  std::vector<LoraDownBackward> downs;
  for (std::size_t i = 0; i < roles.size(); ++i) {
    const LoraPointers& lora = pass_.linear(roles[i]).lora;
    if (lora.rank == 0) continue;
    downs.push_back({gs[i].as(), lora.rank, layer_mask(pass_, roles[i], tokens_.first), lora.a_gradient});
  }
  if (downs.empty()) return;
  const LoraInputShape shape = input_shape(roles[0]);
  const std::size_t bytes = input_workspace_bytes(roles);
  const Arena::Piece workspace = pass_.take_workspace(bytes);
  pass_.resources.launch(
      [&] { lora_down_backward(shape, x, shape.in_features, downs, workspace.as(), bytes, pass_.resources.stream); });
}

/// dx = sum of dy W over `roles`, rounded after each addition, each together with its adapter's part where its kernel
/// takes that, and then the other adapters' parts.
void AdaptedLinears::input_gradient(Roles roles, std::span<void* const> dys, std::int64_t dy_stride,
                                    std::span<const Arena::Piece> gs, void* dx) const {
  const StepResources& resources = pass_.resources;
  const LoraInputShape shape = input_shape(roles[0]);
  const std::int64_t in = shape.in_features;
  const double kept_factor = 1 / (1 - pass_.context.lora_dropout);
  std::vector<LoraInputGradient> left;
  Arena::Piece part;
  for (std::size_t i = 0; i < roles.size(); ++i) {
    if (i == 1) part = pass_.take(tokens_.count * in, "gradients of activations");
    const auto& [weight, bias, lora] = pass_.linear(roles[i]);
    const std::uint8_t* const mask = layer_mask(pass_, roles[i], tokens_.first);
    const Linear4bitAdapter adapter{lora.rank, gs[i].as(), lora_rank_stride(lora.rank), lora.a, kept_factor, mask};
    const ConstRows dy{dys[i], dy_stride};
    if (frozen_linear_input_gradient_with(resources, weight, tokens_.count, dy, {dx, in}, {adapter, i > 0})) continue;
    if (lora.rank > 0) left.push_back({gs[i].as(), lora.a, lora.rank, mask});
    frozen_linear_input_gradient(resources, weight, tokens_.count, dy, {i == 0 ? dx : part.as(), in});
    if (i == 0) continue;
    resources.launch([&] { add(tokens_.count * in, pass_.context.dtype, part.as(), dx, resources.stream); });
  }
  if (left.empty()) return;
  resources.launch([&] { lora_input_gradient(shape, left, dx, in, resources.stream); });
}

}  // namespace qshard::optimized
