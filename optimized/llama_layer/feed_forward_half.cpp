#include "optimized/llama_layer/feed_forward_half.h"

#include <algorithm>
#include <array>

#include "optimized/add.h"
#include "optimized/llama_layer/adapted_linears.h"
#include "optimized/swiglu.h"

namespace qshard::optimized {

namespace {

constexpr std::int64_t kFeedForwardTile = 4096;
constexpr std::array kGateUp{Projection::gate, Projection::up};
constexpr std::array kUpGate{Projection::up, Projection::gate};
constexpr std::array kDown{Projection::down};

/// The half over one tile of the tokens. y and dy are those of all tokens.
class FeedForwardTile {
 public:
  FeedForwardTile(const LayerPass& pass, TokenRange tokens)
      : pass_(pass),
        resources_(pass.resources),
        dtype_(pass.context.dtype),
        kept_(pass.kept),
        linears_(pass, tokens),
        first_(tokens.first),
        tokens_(tokens.count),
        hidden_(pass.hidden()),
        intermediate_(pass.config().intermediate_size) {}

  void forward(void* y) {
    make_gate_up();
    join(row(y));
  }

  void backward(void* dy, bool has_gate_up) {
    if (!has_gate_up) make_gate_up();
    down_backward(row(dy));
    gate_up_backward(row(dy));
  }

 private:
  /// The tile's first row of an array [tokens, hidden].
  [[nodiscard]] void* row(void* rows) const { return pass_.at(rows, first_ * hidden_); }
  [[nodiscard]] void* mlp_residual() const { return row(kept_.mlp_residual.as()); }

  /// Rows of gate and up: kept of all tokens, or made by this tile.
  [[nodiscard]] void* gate() const { return gate_up(0); }
  [[nodiscard]] void* up() const { return gate_up(intermediate_); }
  [[nodiscard]] void* gate_up(std::int64_t offset) const {
    return kept_.gate_up.empty() ? pass_.at(gate_up_, offset)
                                 : pass_.at(kept_.gate_up, first_ * 2 * intermediate_ + offset);
  }

  [[nodiscard]] SwigluShape swiglu_shape() const {
    return {tokens_, intermediate_, 2 * intermediate_, 2 * intermediate_, intermediate_, dtype_};
  }

  /// What goes into the projections of gate and up.
  [[nodiscard]] Arena::Piece norm() const {
    Arena::Piece normed = pass_.take(tokens_ * hidden_, "activations");
    resources_.launch([&] {
      rmsnorm_forward(pass_.hidden_norm(tokens_), mlp_residual(), pass_.weights.post_attention_norm, normed.as(),
                      resources_.stream);
    });
    return normed;
  }

  void make_gate_up() {
    if (kept_.gate_up.empty()) gate_up_ = pass_.take(2 * tokens_ * intermediate_, "activations");
    const Arena::Piece input = norm();
    linears_.down_to_ranks(kGateUp, input.as());
    linears_.project(Projection::gate, input.as(), gate(), 2 * intermediate_);
    linears_.project(Projection::up, input.as(), up(), 2 * intermediate_);
  }

  /// y = mlp_residual + down_proj(swiglu).
  void join(void* y) const {
    const Arena::Piece act = pass_.take(tokens_ * intermediate_, "activations");
    resources_.launch([&] { swiglu_forward(swiglu_shape(), gate(), up(), act.as(), resources_.stream); });
    linears_.down_to_ranks(kDown, act.as());
    linears_.project(Projection::down, act.as(), y, hidden_);
    resources_.launch([&] { add(tokens_ * hidden_, dtype_, mlp_residual(), y, resources_.stream); });
  }

  /// The gradients of gate and up take their place.
  void down_backward(void* dy) const {
    const Arena::Piece dact = pass_.take(tokens_ * intermediate_, "gradients of activations");
    const std::vector<Arena::Piece> gs = linears_.backward(kDown, std::array{dy}, hidden_, &dact);
    void* const act = dact.as();  // what went into the down projection takes the place of its gradient
    resources_.launch(
        [&] { swiglu_backward(swiglu_shape(), gate(), up(), dact.as(), gate(), up(), act, resources_.stream); });
    linears_.backward_down(kDown, act, gs);
  }

  /// dy += the gradient through gate and up, in the reference's order up, gate.
  void gate_up_backward(void* dy) const {
    const Arena::Piece dinput = pass_.take(tokens_ * hidden_, "gradients of activations");
    const std::vector<Arena::Piece> gs =
        linears_.backward(kUpGate, std::array{up(), gate()}, 2 * intermediate_, &dinput);
    void* const input = dinput.as();  // what went into gate and up takes the place of its gradient
    resources_.launch([&] {
      rmsnorm_backward(pass_.hidden_norm(tokens_), mlp_residual(), pass_.weights.post_attention_norm, dinput.as(), dy,
                       dy, input, resources_.stream);
    });
    linears_.backward_down(kUpGate, input, gs);
  }

  const LayerPass& pass_;
  const StepResources& resources_;
  DType dtype_;
  LayerActivations& kept_;
  AdaptedLinears linears_;
  std::int64_t first_;
  std::int64_t tokens_;
  std::int64_t hidden_;
  std::int64_t intermediate_;
  Arena::Piece gate_up_;  // where gate and up of all tokens are not kept
};

/// The number of tiles depends on the number of tokens alone: it decides in which order the adapters' gradients are
/// added up.
template <typename Operation>
void for_each_tile(const LayerPass& pass, const Operation& operation) {
  const std::int64_t tokens = pass.all_tokens().count;
  for (std::int64_t first = 0; first < tokens; first += kFeedForwardTile) {
    FeedForwardTile tile(pass, {first, std::min(kFeedForwardTile, tokens - first)});
    operation(tile);
  }
}

}  // namespace

void feed_forward_half(const LayerPass& pass, void* y, bool keep) {
  if (keep) {
    const std::int64_t elements = 2 * pass.all_tokens().count * pass.config().intermediate_size;
    pass.kept.gate_up = pass.take(elements, "activations");
  }
  for_each_tile(pass, [&](FeedForwardTile& tile) { tile.forward(y); });
}

void feed_forward_half_backward(const LayerPass& pass, void* dy) {
  const bool has_gate_up = !pass.kept.gate_up.empty();
  for_each_tile(pass, [&](FeedForwardTile& tile) { tile.backward(dy, has_gate_up); });
  pass.kept.gate_up = {};
}

}  // namespace qshard::optimized
