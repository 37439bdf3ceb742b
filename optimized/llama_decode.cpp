#include "optimized/llama_decode.h"

#include <array>
#include <span>
#include <vector>

#include "optimized/add.h"
#include "optimized/attention/attention_decode.h"
#include "optimized/lora.h"
#include "optimized/rmsnorm.h"
#include "optimized/swiglu.h"

namespace qshard::optimized {

namespace {

class DecodePass {
 public:
  DecodePass(const StepResources& resources, const DecodeContext& context, const LayerWeights& weights,
             const LayerCache& cache, DecodeActivations& x)
      : resources_(resources),
        context_(context),
        config_(*context.config),
        weights_(weights),
        cache_(cache),
        x_(x),
        rows_(context.cache.rows),
        dtype_(context.cache.dtype),
        hidden_(config_.hidden_size),
        intermediate_(config_.intermediate_size),
        query_(config_.num_attention_heads * config_.head_dim),
        key_value_(config_.num_key_value_heads * config_.head_dim) {}

  void run() {
    const Arena::Piece attention = attend();
    project(std::array{Projection::o}, attention.as(), std::array{x_.branch}, hidden_);
    x_.has_branch = true;
    const Arena::Piece act = gate();
    project(std::array{Projection::down}, act.as(), std::array{x_.branch}, hidden_);
  }

 private:
  [[nodiscard]] Arena::Piece take(std::int64_t elements) const {
    return resources_.arena->take(elements * static_cast<std::int64_t>(size_of(dtype_)), "activations");
  }
  [[nodiscard]] void* at(const Arena::Piece& piece, std::int64_t offset) const {
    return resources_.dry_run() ? nullptr : piece.as<std::byte>() + offset * static_cast<std::int64_t>(size_of(dtype_));
  }
  [[nodiscard]] const LinearPointers& linear(Projection role) const {
    return weights_.projections[static_cast<std::size_t>(role)];
  }

  /// x as one sum, normed.
  [[nodiscard]] Arena::Piece norm(const void* weight) const {
    Arena::Piece normed = take(rows_ * hidden_);
    resources_.launch([&] {
      add_rmsnorm_forward({rows_, 1, hidden_, hidden_, hidden_, config_.rms_norm_eps, dtype_},
                          x_.has_branch ? x_.branch : nullptr, weight, x_.residual, normed.as(), resources_.stream);
    });
    return normed;
  }

  /// ys = W x + b + scaling B A x of the projections that share the input x.
  void project(std::span<const Projection> roles, const void* x, std::span<void* const> ys,
               std::int64_t y_stride) const {
    std::vector<const FrozenWeight*> weights;
    std::vector<MutableRows> outputs;
    for (std::size_t i = 0; i < roles.size(); ++i) {
      weights.push_back(&linear(roles[i]).weight);
      outputs.push_back({ys[i], y_stride});
    }
    frozen_linears(resources_, weights, rows_, {x, weights[0]->in}, outputs);
    for (std::size_t i = 0; i < roles.size(); ++i) {
      const LinearPointers& of = linear(roles[i]);
      if (of.bias == nullptr) continue;
      resources_.launch([&] { add_bias({rows_, of.weight.out, y_stride, dtype_}, of.bias, ys[i], resources_.stream); });
    }
    add_adapters(roles, x, ys, y_stride);
  }

  void add_adapters(std::span<const Projection> roles, const void* x, std::span<void* const> ys,
                    std::int64_t y_stride) const {
    std::vector<LoraDown> downs;
    std::vector<std::int64_t> ranks;
    std::vector<Arena::Piece> hs;
    for (const Projection role : roles) {
      const LoraPointers& lora = linear(role).lora;
      if (lora.rank == 0) continue;
      hs.push_back(take(rows_ * lora_rank_stride(lora.rank)));
      downs.push_back({lora.a, lora.rank, nullptr, hs.back().as()});
      ranks.push_back(lora.rank);
    }
    if (downs.empty()) return;
    const LoraInputShape shape{rows_, linear(roles[0]).weight.in, dtype_, 0.0};
    const std::size_t bytes = lora_input_workspace_bytes(shape, ranks);
    const Arena::Piece workspace = resources_.arena->take(static_cast<std::int64_t>(bytes), "workspace");
    resources_.launch([&] {
      lora_down(shape, x, shape.in_features, downs, workspace.as(), bytes, resources_.stream);
      std::size_t down = 0;
      for (std::size_t i = 0; i < roles.size(); ++i) {
        const LinearPointers& of = linear(roles[i]);
        if (of.lora.rank == 0) continue;
        lora_up_add({rows_, of.weight.out, of.lora.rank, dtype_, of.lora.scaling}, downs[down++].h, of.lora.b, ys[i],
                    y_stride, resources_.stream);
      }
    });
  }

  [[nodiscard]] Arena::Piece attend() const {
    const std::int64_t stride = query_ + 2 * key_value_;
    const Arena::Piece qkv = take(rows_ * stride);
    {
      const Arena::Piece input = norm(weights_.input_norm);
      project(std::array{Projection::q, Projection::k, Projection::v}, input.as(),
              std::array{at(qkv, 0), at(qkv, query_), at(qkv, query_ + key_value_)}, stride);
    }
    resources_.launch([&] {
      if (config_.qk_norm) {
        norm_heads(config_.num_attention_heads, stride, weights_.query_norm, at(qkv, 0));
        norm_heads(config_.num_key_value_heads, stride, weights_.key_norm, at(qkv, query_));
      }
    });
    const AttentionDecodeShape shape{rows_,
                                     config_.num_attention_heads,
                                     config_.num_key_value_heads,
                                     config_.head_dim,
                                     config_.window(context_.layer),
                                     context_.cache.capacity,
                                     stride,
                                     query_,
                                     dtype_};
    Arena::Piece attention = take(rows_ * query_);
    const Arena::Piece workspace =
        resources_.arena->take(static_cast<std::int64_t>(attention_decode_workspace_bytes(shape)), "workspace");
    resources_.launch([&] {
      if (rotate_and_attend(shape, context_.cos, context_.sin, qkv.as(), cache_.keys, cache_.values, context_.lengths,
                            attention.as(), workspace.as(), resources_.stream)) {
        return;
      }
      rotate_and_store(context_.cache, config_.num_attention_heads, context_.positions, context_.cos, context_.sin,
                       qkv.as(), stride, cache_.keys, cache_.values, resources_.stream);
      attention_decode(shape, qkv.as(), cache_.keys, cache_.values, context_.lengths, attention.as(), workspace.as(),
                       resources_.stream);
    });
    return attention;
  }

  void norm_heads(std::int64_t heads, std::int64_t stride, const void* weight, void* x) const {
    rmsnorm_forward({rows_, heads, config_.head_dim, stride, stride, config_.rms_norm_eps, dtype_}, x, weight, x,
                    resources_.stream);
  }

  /// What goes into the down projection.
  [[nodiscard]] Arena::Piece gate() const {
    const std::int64_t stride = 2 * intermediate_;
    const Arena::Piece gate_up = take(rows_ * stride);
    {
      const Arena::Piece input = norm(weights_.post_attention_norm);
      project(std::array{Projection::gate, Projection::up}, input.as(),
              std::array{at(gate_up, 0), at(gate_up, intermediate_)}, stride);
    }
    Arena::Piece act = take(rows_ * intermediate_);
    resources_.launch([&] {
      swiglu_forward({rows_, intermediate_, stride, stride, intermediate_, dtype_}, at(gate_up, 0),
                     at(gate_up, intermediate_), act.as(), resources_.stream);
    });
    return act;
  }

  const StepResources& resources_;
  const DecodeContext& context_;
  const ModelConfig& config_;
  const LayerWeights& weights_;
  const LayerCache& cache_;
  DecodeActivations& x_;
  std::int64_t rows_;
  DType dtype_;
  std::int64_t hidden_;
  std::int64_t intermediate_;
  std::int64_t query_;
  std::int64_t key_value_;
};

}  // namespace

void decode_layer(const StepResources& resources, const DecodeContext& context, const LayerWeights& weights,
                  const LayerCache& cache, DecodeActivations& activations) {
  DecodePass(resources, context, weights, cache, activations).run();
}

}  // namespace qshard::optimized
