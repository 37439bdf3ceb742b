#include "optimized/llama_layer.h"

#include <algorithm>
#include <span>
#include <vector>

#include "optimized/add.h"
#include "optimized/dropout_masks.h"
#include "optimized/lora.h"
#include "optimized/rmsnorm.h"
#include "optimized/rope.h"
#include "optimized/swiglu.h"

namespace qshard::optimized {

namespace {

/// One pass over one layer: sizes, places in the activations, and the pieces that both passes are made of.
class LayerPass {
 public:
  LayerPass(const StepResources& resources, const LayerContext& context, const LayerWeights& weights,
            LayerActivations& activations)
      : resources_(resources),
        context_(context),
        config_(*context.config),
        weights_(weights),
        kept_(activations),
        all_tokens_(context.rows->tokens),
        tokens_(all_tokens_),
        hidden_(config_.hidden_size),
        intermediate_(config_.intermediate_size),
        query_(config_.num_attention_heads * config_.head_dim),
        key_value_(config_.num_key_value_heads * config_.head_dim),
        element_(static_cast<std::int64_t>(size_of(context.dtype))) {}

  void forward(const void* x, void* y, bool keep) {
    attention_half(x);
    feed_forward(y, keep);
  }

  void attention_half(const void* x) {
    make_masks();
    attend(x);
    join_attention(x);
  }

  void backward(const void* x, bool want_dx, void* dy) {
    make_masks();
    feed_forward_backward(dy);
    // From here on dy is the gradient of mlp_residual: that of attention's output and, past it, of x.
    const Arena::Piece dqkv = attend_backward(dy);
    project_backward_to_input(x, want_dx, dqkv, dy);
  }

 private:
  using Roles = std::span<const Projection>;

  /// The feed-forward half of `whole` over some of its tokens, in the same order.
  LayerPass(const LayerPass& whole, std::int64_t first, std::int64_t tokens)
      : resources_(whole.resources_),
        context_(whole.context_),
        config_(whole.config_),
        weights_(whole.weights_),
        kept_(whole.kept_),
        all_tokens_(whole.all_tokens_),
        first_(first),
        tokens_(tokens),
        hidden_(whole.hidden_),
        intermediate_(whole.intermediate_),
        query_(whole.query_),
        key_value_(whole.key_value_),
        element_(whole.element_) {}

  [[nodiscard]] Arena::Piece take(std::int64_t elements, const char* name) const {
    return resources_.arena->take(elements * element_, name);
  }

  /// Element `offset` of a piece; null in a dry run.
  [[nodiscard]] void* at(const Arena::Piece& piece, std::int64_t offset) const {
    return resources_.dry_run() ? nullptr : piece.as<std::byte>() + offset * element_;
  }

  [[nodiscard]] const LinearPointers& linear(Projection role) const {
    return weights_.projections[static_cast<std::size_t>(role)];
  }
  [[nodiscard]] Arena::Piece& kept_lora_h(Projection role) const { return kept_.lora[static_cast<std::size_t>(role)]; }
  [[nodiscard]] void* lora_h(Projection role) const {
    return at(kept_lora_h(role), first_ * lora_rank_stride(linear(role).lora.rank));
  }

  // ---- dropout masks ----

  [[nodiscard]] bool drops() const { return context_.lora_dropout > 0; }

  /// Where a projection's mask lies in the piece of all masks, in bytes.
  [[nodiscard]] std::int64_t mask_offset(Projection role) const {
    std::int64_t offset = 0;
    for (std::size_t before = 0; before < static_cast<std::size_t>(role); ++before) {
      offset += all_tokens_ * dropout_mask_stride(weights_.projections[before].weight.in);
    }
    return offset;
  }

  [[nodiscard]] const std::uint8_t* mask(Projection role) const {
    if (!drops() || resources_.dry_run()) return nullptr;
    return kept_.masks.as<std::uint8_t>() + mask_offset(role) + first_ * dropout_mask_stride(linear(role).weight.in);
  }

  void make_masks() {
    if (!drops() || !kept_.masks.empty()) return;
    const std::int64_t bytes =
        mask_offset(Projection::down) + all_tokens_ * dropout_mask_stride(linear(Projection::down).weight.in);
    kept_.masks = resources_.arena->take(bytes, "dropout masks");
    std::vector<DropoutMaskBits> masks;
    for (std::size_t role = 0; role < kProjections; ++role) {
      if (weights_.projections[role].lora.rank == 0) continue;
      auto* bits =
          resources_.dry_run() ? nullptr : kept_.masks.as<std::uint8_t>() + mask_offset(static_cast<Projection>(role));
      masks.push_back({static_cast<std::uint32_t>(role), weights_.projections[role].weight.in, bits});
    }
    const DropoutMask common{context_.dropout_seed, context_.step, static_cast<std::uint32_t>(context_.layer), 0,
                             context_.lora_dropout};
    resources_.launch([&] { dropout_masks(common, *context_.rows, masks, resources_.stream); });
  }

  // ---- linear layers with their adapters ----

  [[nodiscard]] LoraInputShape lora_input(Projection role) const {
    return {tokens_, linear(role).weight.in, context_.dtype, context_.lora_dropout};
  }
  [[nodiscard]] LoraOutputShape lora_output(Projection role) const {
    const LinearPointers& of = linear(role);
    return {tokens_, of.weight.out, of.lora.rank, context_.dtype, of.lora.scaling};
  }

  /// Workspace of lora_down() and lora_down_backward() over those of `roles` that have an adapter.
  [[nodiscard]] std::size_t lora_workspace_bytes(Roles roles) const {
    std::vector<std::int64_t> ranks;
    for (const Projection role : roles) {
      if (linear(role).lora.rank > 0) ranks.push_back(linear(role).lora.rank);
    }
    return lora_input_workspace_bytes(lora_input(roles[0]), ranks);
  }

  /// h of the projections that share the input x.
  void down_to_ranks(Roles roles, const void* x) const {
    std::vector<LoraDown> downs;
    for (const Projection role : roles) {
      const LoraPointers& lora = linear(role).lora;
      if (lora.rank == 0) continue;
      if (kept_lora_h(role).empty()) {
        kept_lora_h(role) = take(all_tokens_ * lora_rank_stride(lora.rank), "activations");
      }
      downs.push_back({lora.a, lora.rank, mask(role), lora_h(role)});
    }
    if (downs.empty()) return;
    const std::size_t bytes = lora_workspace_bytes(roles);
    const Arena::Piece workspace = resources_.arena->take(static_cast<std::int64_t>(bytes), "workspace");
    resources_.launch([&] {
      lora_down(lora_input(roles[0]), x, linear(roles[0]).weight.in, downs, workspace.as(), bytes, resources_.stream);
    });
  }

  /// y = W x + b + scaling B h, where h is there already; in one product where its kernel takes the adapter.
  void project(Projection role, const void* x, void* y, std::int64_t y_stride) const {
    const LinearPointers& of = linear(role);
    const bool adapted =
        of.lora.rank > 0 &&
        frozen_linear_with(
            resources_, of.weight, tokens_, {x, of.weight.in}, {y, y_stride},
            {{of.lora.rank, lora_h(role), lora_rank_stride(of.lora.rank), of.lora.b, of.lora.scaling, nullptr}, false});
    if (!adapted) frozen_linear(resources_, of.weight, tokens_, {x, of.weight.in}, {y, y_stride});
    if (of.bias != nullptr) {
      resources_.launch([&] {
        add_bias({tokens_, of.weight.out, y_stride, context_.dtype}, of.bias, y, resources_.stream);
      });
    }
    if (of.lora.rank == 0 || adapted) return;
    resources_.launch([&] { lora_up_add(lora_output(role), lora_h(role), of.lora.b, y, y_stride, resources_.stream); });
  }

  /// Adds the gradients of the adapters of `roles`, which share the input x and whose outputs' gradients are dys, and
  /// makes dx, that of x, unless it is null. dx may not be one of dys.
  void projections_backward(Roles roles, const void* x, std::span<void* const> dys, std::int64_t dy_stride,
                            const Arena::Piece* dx) const {
    std::vector<Arena::Piece> gs;
    std::vector<LoraDownBackward> downs;
    std::vector<LoraInputGradient> inputs(roles.size());
    for (std::size_t i = 0; i < roles.size(); ++i) {
      const LoraPointers& lora = linear(roles[i]).lora;
      if (lora.rank == 0) continue;
      gs.push_back(take(tokens_ * lora_rank_stride(lora.rank), "activations"));
      const LoraOutputShape shape = lora_output(roles[i]);
      const std::size_t bytes = lora_output_workspace_bytes(shape);
      const Arena::Piece workspace = resources_.arena->take(static_cast<std::int64_t>(bytes), "workspace");
      resources_.launch([&] {
        lora_up_backward(shape, dys[i], dy_stride, lora_h(roles[i]), lora.b, gs.back().as(), lora.b_gradient,
                         workspace.as(), bytes, resources_.stream);
      });
      downs.push_back({gs.back().as(), lora.rank, mask(roles[i]), lora.a_gradient});
      inputs[i] = {gs.back().as(), lora.a, lora.rank, mask(roles[i])};
    }
    const std::int64_t in = linear(roles[0]).weight.in;
    if (!downs.empty()) {
      const std::size_t bytes = lora_workspace_bytes(roles);
      const Arena::Piece workspace = resources_.arena->take(static_cast<std::int64_t>(bytes), "workspace");
      resources_.launch(
          [&] { lora_down_backward(lora_input(roles[0]), x, in, downs, workspace.as(), bytes, resources_.stream); });
    }
    if (dx == nullptr) return;
    const std::vector<LoraInputGradient> left = input_gradient(roles, dys, dy_stride, inputs, dx->as());
    if (left.empty()) return;
    resources_.launch([&] { lora_input_gradient(lora_input(roles[0]), left, dx->as(), in, resources_.stream); });
  }

  /// dx = sum of dy W over `roles`, rounded after each addition, each together with its adapter's part where its kernel
  /// takes that; returns the other adapters.
  [[nodiscard]] std::vector<LoraInputGradient> input_gradient(Roles roles, std::span<void* const> dys,
                                                              std::int64_t dy_stride,
                                                              std::span<const LoraInputGradient> adapters,
                                                              void* dx) const {
    const std::int64_t in = linear(roles[0]).weight.in;
    std::vector<LoraInputGradient> left;
    Arena::Piece part;
    for (std::size_t i = 0; i < roles.size(); ++i) {
      if (i == 1) part = take(tokens_ * in, "gradients of activations");
      const FrozenWeight& weight = linear(roles[i]).weight;
      const auto& [g, a, rank, kept] = adapters[i];
      const Linear4bitAdapter adapter{rank, g, lora_rank_stride(rank), a, 1 / (1 - context_.lora_dropout), kept};
      const ConstRows dy{dys[i], dy_stride};
      if (frozen_linear_input_gradient_with(resources_, weight, tokens_, dy, {dx, in}, {adapter, i > 0})) continue;
      if (rank > 0) left.push_back(adapters[i]);
      frozen_linear_input_gradient(resources_, weight, tokens_, dy, {i == 0 ? dx : part.as(), in});
      if (i == 0) continue;
      resources_.launch([&] { add(tokens_ * in, context_.dtype, part.as(), dx, resources_.stream); });
    }
    return left;
  }

  // ---- the first half: attention ----

  [[nodiscard]] std::int64_t qkv_stride() const { return query_ + 2 * key_value_; }

  [[nodiscard]] NormShape hidden_norm() const {
    return {tokens_, 1, hidden_, hidden_, hidden_, config_.rms_norm_eps, context_.dtype};
  }
  [[nodiscard]] NormShape head_norm(std::int64_t heads, std::int64_t x_stride, std::int64_t y_stride) const {
    return {tokens_, heads, config_.head_dim, x_stride, y_stride, config_.rms_norm_eps, context_.dtype};
  }
  /// The query heads and, behind them, the key heads.
  [[nodiscard]] RopeShape rope_shape() const {
    const std::int64_t heads = config_.num_attention_heads + config_.num_key_value_heads;
    return {tokens_, heads, config_.head_dim, qkv_stride(), context_.dtype};
  }

  /// Query, key and value as attention sees them, in one piece, since attention takes one stride for keys and values.
  /// Where heads are normed, what went into the norms is needed too, so that piece is a second one.
  [[nodiscard]] const Arena::Piece& rotated() const { return config_.qk_norm ? kept_.rotated : kept_.qkv; }

  [[nodiscard]] AttentionShape attention_shape() const {
    return {config_.num_attention_heads,
            config_.num_key_value_heads,
            config_.head_dim,
            config_.window(context_.layer),
            qkv_stride(),
            qkv_stride(),
            query_,
            context_.dtype};
  }

  void attend(const void* x) {
    kept_.qkv = take(tokens_ * qkv_stride(), "activations");
    {
      const Arena::Piece input = take(tokens_ * hidden_, "activations");
      resources_.launch([&] { rmsnorm_forward(hidden_norm(), x, weights_.input_norm, input.as(), resources_.stream); });
      down_to_ranks(kQueryKeyValue, input.as());
      project(Projection::q, input.as(), at(kept_.qkv, 0), qkv_stride());
      project(Projection::k, input.as(), at(kept_.qkv, query_), qkv_stride());
      project(Projection::v, input.as(), at(kept_.qkv, query_ + key_value_), qkv_stride());
    }
    rotate();
    kept_.attention_output = take(tokens_ * query_, "activations");
    kept_.lse = resources_.arena->take(config_.num_attention_heads * tokens_ * 4, "activations");
    const Arena::Piece workspace = attention_workspace();
    resources_.launch([&] {
      attention_forward(attention_shape(), *context_.rows, at(rotated(), 0), at(rotated(), query_),
                        at(rotated(), query_ + key_value_), kept_.attention_output.as(), kept_.lse.as<float>(),
                        workspace.as(), resources_.stream);
    });
  }

  /// Norms of heads, where the family has them, and the rotary embedding.
  void rotate() {
    if (config_.qk_norm) {
      kept_.rotated = take(tokens_ * qkv_stride(), "activations");
      resources_.launch([&] {
        copy_rows({tokens_, key_value_, qkv_stride(), context_.dtype}, at(kept_.qkv, query_ + key_value_),
                  at(kept_.rotated, query_ + key_value_), resources_.stream);
        rmsnorm_forward(head_norm(config_.num_attention_heads, qkv_stride(), qkv_stride()), at(kept_.qkv, 0),
                        weights_.query_norm, at(kept_.rotated, 0), resources_.stream);
        rmsnorm_forward(head_norm(config_.num_key_value_heads, qkv_stride(), qkv_stride()), at(kept_.qkv, query_),
                        weights_.key_norm, at(kept_.rotated, query_), resources_.stream);
      });
    }
    resources_.launch([&] {
      rope_forward(rope_shape(), context_.rows->positions, context_.cos, context_.sin, at(rotated(), 0),
                   resources_.stream);
    });
  }

  [[nodiscard]] Arena::Piece attention_workspace() const {
    const TokenRows& rows = *context_.rows;
    return resources_.arena->take(
        static_cast<std::int64_t>(attention_workspace_bytes(attention_shape(), rows.tokens, rows.rows, rows.longest)),
        "workspace");
  }

  /// mlp_residual = x + o_proj(attention).
  void join_attention(const void* x) {
    kept_.mlp_residual = take(tokens_ * hidden_, "activations");
    down_to_ranks(kOutput, kept_.attention_output.as());
    project(Projection::o, kept_.attention_output.as(), kept_.mlp_residual.as(), hidden_);
    resources_.launch([&] { add(tokens_ * hidden_, context_.dtype, x, kept_.mlp_residual.as(), resources_.stream); });
  }

  /// Returns the gradients of query, key and value before norm and RoPE, laid out as qkv; dy stays.
  [[nodiscard]] Arena::Piece attend_backward(void* dy) {
    const Arena::Piece dattention = take(tokens_ * query_, "gradients of activations");
    projections_backward(kOutput, kept_.attention_output.as(), std::array{dy}, hidden_, &dattention);
    Arena::Piece dqkv = take(tokens_ * qkv_stride(), "gradients of activations");
    {
      const Arena::Piece workspace = attention_workspace();
      resources_.launch([&] {
        attention_backward(attention_shape(), *context_.rows, at(rotated(), 0), at(rotated(), query_),
                           at(rotated(), query_ + key_value_), kept_.attention_output.as(), kept_.lse.as<float>(),
                           dattention.as(), at(dqkv, 0), at(dqkv, query_), at(dqkv, query_ + key_value_),
                           workspace.as(), resources_.stream);
      });
    }
    resources_.launch([&] {
      rope_backward(rope_shape(), context_.rows->positions, context_.cos, context_.sin, at(dqkv, 0), resources_.stream);
      if (!config_.qk_norm) return;
      rmsnorm_backward(head_norm(config_.num_attention_heads, qkv_stride(), qkv_stride()), at(kept_.qkv, 0),
                       weights_.query_norm, at(dqkv, 0), nullptr, at(dqkv, 0), resources_.stream);
      rmsnorm_backward(head_norm(config_.num_key_value_heads, qkv_stride(), qkv_stride()), at(kept_.qkv, query_),
                       weights_.key_norm, at(dqkv, query_), nullptr, at(dqkv, query_), resources_.stream);
    });
    return dqkv;
  }

  /// dy += the gradient through q, k and v; of the reference's order v, k, q.
  void project_backward_to_input(const void* x, bool want_dx, const Arena::Piece& dqkv, void* dy) {
    const Arena::Piece input = take(tokens_ * hidden_, "activations");
    resources_.launch([&] { rmsnorm_forward(hidden_norm(), x, weights_.input_norm, input.as(), resources_.stream); });
    const std::array<void*, 3> parts{at(dqkv, query_ + key_value_), at(dqkv, query_), at(dqkv, 0)};
    if (!want_dx) {
      projections_backward(kValueKeyQuery, input.as(), parts, qkv_stride(), nullptr);
      return;
    }
    const Arena::Piece dinput = take(tokens_ * hidden_, "gradients of activations");
    projections_backward(kValueKeyQuery, input.as(), parts, qkv_stride(), &dinput);
    resources_.launch(
        [&] { rmsnorm_backward(hidden_norm(), x, weights_.input_norm, dinput.as(), dy, dy, resources_.stream); });
  }

  // ---- the second half: feed-forward ----

  [[nodiscard]] SwigluShape swiglu_shape() const {
    return {tokens_, intermediate_, 2 * intermediate_, 2 * intermediate_, intermediate_, context_.dtype};
  }

  /// Tiles of the tokens, so that what lies between the products need not exist for all of them at once. The number of
  /// tiles depends on the number of tokens alone: it decides in which order the adapters' gradients are added up.
  template <typename Operation>
  void for_each_tile(const Operation& operation) const {
    for (std::int64_t first = 0; first < tokens_; first += kFeedForwardTile) {
      LayerPass tile(*this, first, std::min(kFeedForwardTile, tokens_ - first));
      operation(tile);
    }
  }

  /// Element `offset` of gate and up of this tile: in what is kept of all tokens, or in what this tile has made.
  [[nodiscard]] void* gate_up(std::int64_t offset) const {
    return kept_.gate_up.empty() ? at(gate_up_, offset) : at(kept_.gate_up, first_ * 2 * intermediate_ + offset);
  }

  void mlp_norm(const Arena::Piece& input) const {
    resources_.launch([&] {
      rmsnorm_forward(hidden_norm(), at(kept_.mlp_residual, first_ * hidden_), weights_.post_attention_norm, input.as(),
                      resources_.stream);
    });
  }

  void swiglu(const Arena::Piece& out) const {
    resources_.launch(
        [&] { swiglu_forward(swiglu_shape(), gate_up(0), gate_up(intermediate_), out.as(), resources_.stream); });
  }

  void make_gate_up() {
    if (kept_.gate_up.empty()) gate_up_ = take(2 * tokens_ * intermediate_, "activations");
    const Arena::Piece input = take(tokens_ * hidden_, "activations");
    mlp_norm(input);
    down_to_ranks(kGateUp, input.as());
    project(Projection::gate, input.as(), gate_up(0), 2 * intermediate_);
    project(Projection::up, input.as(), gate_up(intermediate_), 2 * intermediate_);
  }

  /// y = mlp_residual + down_proj(swiglu).
  void join_feed_forward(void* y) {
    const Arena::Piece act = take(tokens_ * intermediate_, "activations");
    swiglu(act);
    down_to_ranks(kDown, act.as());
    project(Projection::down, act.as(), y, hidden_);
    resources_.launch([&] {
      add(tokens_ * hidden_, context_.dtype, at(kept_.mlp_residual, first_ * hidden_), y, resources_.stream);
    });
  }

  /// Row `first` of rows of hidden_ elements.
  [[nodiscard]] void* row(void* rows, std::int64_t first) const {
    return resources_.dry_run() ? nullptr : static_cast<std::byte*>(rows) + first * hidden_ * element_;
  }

  void feed_forward(void* y, bool keep) {
    if (keep) kept_.gate_up = take(2 * tokens_ * intermediate_, "activations");
    for_each_tile([&](LayerPass& tile) {
      tile.make_gate_up();
      tile.join_feed_forward(row(y, tile.first_));
    });
  }

  /// dy becomes the gradient of mlp_residual; gate_up is used up.
  void feed_forward_backward(void* dy) {
    const bool has_gate_up = !kept_.gate_up.empty();
    const bool has_down_h = !kept_lora_h(Projection::down).empty();
    for_each_tile([&](LayerPass& tile) {
      if (!has_gate_up) tile.make_gate_up();
      tile.down_backward(row(dy, tile.first_), has_down_h);
      tile.gate_up_backward(row(dy, tile.first_));
    });
    kept_.gate_up = {};
  }

  /// The gradients of gate and up take their place.
  void down_backward(void* dy, bool has_down_h) {
    const Arena::Piece dact = take(tokens_ * intermediate_, "gradients of activations");
    {
      const Arena::Piece act = take(tokens_ * intermediate_, "activations");
      swiglu(act);
      if (!has_down_h) down_to_ranks(kDown, act.as());
      projections_backward(kDown, act.as(), std::array{dy}, hidden_, &dact);
    }
    resources_.launch([&] {
      swiglu_backward(swiglu_shape(), gate_up(0), gate_up(intermediate_), dact.as(), gate_up(0), gate_up(intermediate_),
                      resources_.stream);
    });
  }

  void gate_up_backward(void* dy) {
    const Arena::Piece input = take(tokens_ * hidden_, "activations");
    mlp_norm(input);
    const Arena::Piece dinput = take(tokens_ * hidden_, "gradients of activations");
    const std::array<void*, 2> parts{gate_up(intermediate_), gate_up(0)};
    projections_backward(kUpGate, input.as(), parts, 2 * intermediate_, &dinput);
    resources_.launch([&] {
      rmsnorm_backward(hidden_norm(), at(kept_.mlp_residual, first_ * hidden_), weights_.post_attention_norm,
                       dinput.as(), dy, dy, resources_.stream);
    });
  }

  static constexpr std::int64_t kFeedForwardTile = 4096;
  static constexpr std::array kQueryKeyValue{Projection::q, Projection::k, Projection::v};
  static constexpr std::array kValueKeyQuery{Projection::v, Projection::k, Projection::q};
  static constexpr std::array kOutput{Projection::o};
  static constexpr std::array kGateUp{Projection::gate, Projection::up};
  static constexpr std::array kUpGate{Projection::up, Projection::gate};
  static constexpr std::array kDown{Projection::down};

  const StepResources& resources_;
  const LayerContext& context_;
  const ModelConfig& config_;
  const LayerWeights& weights_;
  LayerActivations& kept_;
  std::int64_t all_tokens_;
  std::int64_t first_ = 0;  // of all tokens, the first that this pass works on
  std::int64_t tokens_;     // how many it works on
  std::int64_t hidden_;
  std::int64_t intermediate_;
  std::int64_t query_;
  std::int64_t key_value_;
  std::int64_t element_;
  Arena::Piece gate_up_;  // of a tile, where gate and up of all tokens are not kept
};

}  // namespace

void layer_forward(const StepResources& resources, const LayerContext& context, const LayerWeights& weights,
                   const void* x, void* y, bool keep, LayerActivations& activations) {
  LayerPass(resources, context, weights, activations).forward(x, y, keep);
}

void layer_activations(const StepResources& resources, const LayerContext& context, const LayerWeights& weights,
                       const void* x, LayerActivations& activations) {
  LayerPass(resources, context, weights, activations).attention_half(x);
}

void layer_backward(const StepResources& resources, const LayerContext& context, const LayerWeights& weights,
                    const void* x, bool want_dx, void* dy, LayerActivations& activations) {
  LayerPass(resources, context, weights, activations).backward(x, want_dx, dy);
}

}  // namespace qshard::optimized
