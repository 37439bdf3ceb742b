#include "optimized/llama_layer/attention_half.h"

#include <array>

#include "optimized/add.h"
#include "optimized/llama_layer/adapted_linears.h"
#include "optimized/rope.h"

namespace qshard::optimized {

namespace {

constexpr std::array kQueryKeyValue{Projection::q, Projection::k, Projection::v};
constexpr std::array kValueKeyQuery{Projection::v, Projection::k, Projection::q};
constexpr std::array kOutput{Projection::o};

/// Where the first token's parts lie in rows of query heads, key heads and value heads.
struct QueryKeyValue {
  void* query;
  void* key;
  void* value;
};

class AttentionHalf {
 public:
  explicit AttentionHalf(const LayerPass& pass)
      : pass_(pass),
        resources_(pass.resources),
        context_(pass.context),
        config_(pass.config()),
        kept_(pass.kept),
        linears_(pass, pass.all_tokens()),
        tokens_(pass.all_tokens().count),
        hidden_(pass.hidden()),
        query_(config_.num_attention_heads * config_.head_dim),
        key_value_(config_.num_key_value_heads * config_.head_dim),
        stride_(query_ + 2 * key_value_) {}

  void forward(const void* x) const {
    make_query_key_value(x);
    rotate();
    attend();
    join(x);
  }

  void backward(const void* x, bool want_dx, void* dy) const {
    const Arena::Piece dqkv = attend_backward(dy);
    rotate_backward(dqkv);
    projections_backward(x, want_dx, dqkv, dy);
  }

 private:
  [[nodiscard]] QueryKeyValue parts(const Arena::Piece& piece) const {
    return {pass_.at(piece, 0), pass_.at(piece, query_), pass_.at(piece, query_ + key_value_)};
  }

  [[nodiscard]] NormShape head_norm(std::int64_t heads) const {
    return {tokens_, heads, config_.head_dim, stride_, stride_, config_.rms_norm_eps, context_.dtype};
  }
  /// The query heads and, behind them, the key heads.
  [[nodiscard]] RopeShape rope_shape() const {
    const std::int64_t heads = config_.num_attention_heads + config_.num_key_value_heads;
    return {tokens_, heads, config_.head_dim, stride_, context_.dtype};
  }
  [[nodiscard]] AttentionShape shape() const { return attention_shape(config_, context_.layer, context_.dtype); }

  /// Query, key and value as attention sees them, in one piece, since attention takes one stride for keys and values.
  /// Where heads are normed, what went into the norms is needed too, so that piece is a second one.
  [[nodiscard]] const Arena::Piece& rotated() const { return config_.qk_norm ? kept_.rotated : kept_.qkv; }

  [[nodiscard]] Arena::Piece attention_workspace() const {
    const TokenRows& rows = *context_.rows;
    return pass_.take_workspace(attention_workspace_bytes(shape(), rows.tokens, rows.rows, rows.longest));
  }

  /// What goes into the projections of query, key and value.
  [[nodiscard]] Arena::Piece norm(const void* x) const {
    Arena::Piece normed = pass_.take(tokens_ * hidden_, "activations");
    resources_.launch([&] {
      rmsnorm_forward(pass_.hidden_norm(tokens_), x, pass_.weights.input_norm, normed.as(), resources_.stream);
    });
    return normed;
  }

  void make_query_key_value(const void* x) const {
    kept_.qkv = pass_.take(tokens_ * stride_, "activations");
    const Arena::Piece input = norm(x);
    const auto [query, key, value] = parts(kept_.qkv);
    linears_.down_to_ranks(kQueryKeyValue, input.as());
    linears_.project(Projection::q, input.as(), query, stride_);
    linears_.project(Projection::k, input.as(), key, stride_);
    linears_.project(Projection::v, input.as(), value, stride_);
  }

  /// Norms of heads, where the family has them, and the rotary embedding.
  void rotate() const {
    if (config_.qk_norm) norm_heads();
    resources_.launch([&] {
      rope_forward(rope_shape(), context_.rows->positions, context_.cos, context_.sin, parts(rotated()).query,
                   resources_.stream);
    });
  }

  void norm_heads() const {
    kept_.rotated = pass_.take(tokens_ * stride_, "activations");
    const QueryKeyValue from = parts(kept_.qkv);
    const QueryKeyValue to = parts(kept_.rotated);
    resources_.launch([&] {
      copy_rows({tokens_, key_value_, stride_, context_.dtype}, from.value, to.value, resources_.stream);
      rmsnorm_forward(head_norm(config_.num_attention_heads), from.query, pass_.weights.query_norm, to.query,
                      resources_.stream);
      rmsnorm_forward(head_norm(config_.num_key_value_heads), from.key, pass_.weights.key_norm, to.key,
                      resources_.stream);
    });
  }

  void attend() const {
    kept_.attention_output = pass_.take(tokens_ * query_, "activations");
    kept_.lse = resources_.arena->take(config_.num_attention_heads * tokens_ * 4, "activations");
    const Arena::Piece workspace = attention_workspace();
    const QueryKeyValue in = parts(rotated());
    resources_.launch([&] {
      attention_forward(shape(), *context_.rows, in.query, in.key, in.value, kept_.attention_output.as(),
                        kept_.lse.as<float>(), workspace.as(), resources_.stream);
    });
  }

  /// mlp_residual = x + o_proj(attention).
  void join(const void* x) const {
    kept_.mlp_residual = pass_.take(tokens_ * hidden_, "activations");
    linears_.down_to_ranks(kOutput, kept_.attention_output.as());
    linears_.project(Projection::o, kept_.attention_output.as(), kept_.mlp_residual.as(), hidden_);
    resources_.launch([&] { add(tokens_ * hidden_, context_.dtype, x, kept_.mlp_residual.as(), resources_.stream); });
  }

  /// Returns the gradients of query, key and value as attention saw them, laid out as qkv; dy stays.
  [[nodiscard]] Arena::Piece attend_backward(void* dy) const {
    const Arena::Piece dattention = pass_.take(tokens_ * query_, "gradients of activations");
    const std::vector<Arena::Piece> gs = linears_.backward(kOutput, std::array{dy}, hidden_, &dattention);
    linears_.backward_down(kOutput, kept_.attention_output.as(), gs);
    Arena::Piece dqkv = pass_.take(tokens_ * stride_, "gradients of activations");
    const Arena::Piece workspace = attention_workspace();
    const QueryKeyValue in = parts(rotated());
    const QueryKeyValue out = parts(dqkv);
    resources_.launch([&] {
      attention_backward(shape(), *context_.rows, in.query, in.key, in.value, kept_.attention_output.as(),
                         kept_.lse.as<float>(), dattention.as(), out.query, out.key, out.value, workspace.as(),
                         resources_.stream);
    });
    return dqkv;
  }

  /// The gradients before RoPE and norms of heads, in place.
  void rotate_backward(const Arena::Piece& dqkv) const {
    const QueryKeyValue in = parts(kept_.qkv);
    const QueryKeyValue d = parts(dqkv);
    resources_.launch([&] {
      rope_backward(rope_shape(), context_.rows->positions, context_.cos, context_.sin, d.query, resources_.stream);
      if (!config_.qk_norm) return;
      rmsnorm_backward(head_norm(config_.num_attention_heads), in.query, pass_.weights.query_norm, d.query, nullptr,
                       d.query, nullptr, resources_.stream);
      rmsnorm_backward(head_norm(config_.num_key_value_heads), in.key, pass_.weights.key_norm, d.key, nullptr, d.key,
                       nullptr, resources_.stream);
    });
  }

  /// dy += the gradient through q, k and v, in the reference's order v, k, q.
  void projections_backward(const void* x, bool want_dx, const Arena::Piece& dqkv, void* dy) const {
    const auto [dquery, dkey, dvalue] = parts(dqkv);
    const std::array dys{dvalue, dkey, dquery};
    if (!want_dx) {
      const std::vector<Arena::Piece> gs = linears_.backward(kValueKeyQuery, dys, stride_, nullptr);
      linears_.backward_down(kValueKeyQuery, norm(x).as(), gs);
      return;
    }
    const Arena::Piece dinput = pass_.take(tokens_ * hidden_, "gradients of activations");
    const std::vector<Arena::Piece> gs = linears_.backward(kValueKeyQuery, dys, stride_, &dinput);
    void* const input = dinput.as();  // the norm of x takes the place of its gradient
    resources_.launch([&] {
      rmsnorm_backward(pass_.hidden_norm(tokens_), x, pass_.weights.input_norm, dinput.as(), dy, dy, input,
                       resources_.stream);
    });
    linears_.backward_down(kValueKeyQuery, input, gs);
  }

  const LayerPass& pass_;
  const StepResources& resources_;
  const LayerContext& context_;
  const ModelConfig& config_;
  LayerActivations& kept_;
  AdaptedLinears linears_;
  std::int64_t tokens_;
  std::int64_t hidden_;
  std::int64_t query_;
  std::int64_t key_value_;
  std::int64_t stride_;  // elements of qkv from one token to the next
};

}  // namespace

AttentionShape attention_shape(const ModelConfig& config, std::int64_t layer, DType dtype) {
  const std::int64_t query = config.num_attention_heads * config.head_dim;
  const std::int64_t all = query + 2 * config.num_key_value_heads * config.head_dim;
  return {config.num_attention_heads,
          config.num_key_value_heads,
          config.head_dim,
          config.window(layer),
          all,
          all,
          query,
          dtype};
}

void attention_half(const LayerPass& pass, const void* x) {
  AttentionHalf(pass).forward(x);
}

void attention_half_backward(const LayerPass& pass, const void* x, bool want_dx, void* dy) {
  AttentionHalf(pass).backward(x, want_dx, dy);
}

}  // namespace qshard::optimized
