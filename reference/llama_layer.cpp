#include "reference/llama_layer.h"

#include <utility>

#include "reference/attention.h"
#include "reference/dora.h"
#include "reference/dropout.h"
#include "reference/matrix_product.h"
#include "reference/rmsnorm.h"
#include "reference/swiglu.h"

namespace qshard::reference {
namespace {

AttentionShape attention_shape(const ModelConfig& config, std::uint32_t layer) {
  return {config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.window(layer)};
}

template <typename T>
void drop(const LayerContext<T>& context, Projection projection, Matrix<T>& values) {
  const DropoutPlace place{context.dropout_seed, context.step, context.layer, static_cast<std::uint32_t>(projection)};
  dropout(place, context.lora_dropout, *context.batch, context.compute_dtype, values);
}

/// The rows of the tokens that are read, and the way back: 0 in all others.
template <typename T>
Matrix<T> read_rows(const LayerContext<T>& context, const Matrix<T>& all) {
  return all(*context.read, Eigen::all);
}

template <typename T>
Matrix<T> spread_rows(const LayerContext<T>& context, const Matrix<T>& rows) {
  Matrix<T> all = Matrix<T>::Zero(context.batch->tokens(), rows.cols());
  all(*context.read, Eigen::all) = rows;
  return all;
}

/// y = W x + b + scaling * B A dropout(x), or what DoRA makes of it, for one of the seven linear layers.
template <typename T>
Matrix<T> project(const LayerContext<T>& context, const LayerWeights<T>& weights, Projection projection,
                  const Matrix<T>& x) {
  const LinearWeights<T>& linear = weights.projections[static_cast<std::size_t>(projection)];
  Matrix<T> y = linear4bit_forward(linear, context.compute_dtype, x);
  if (!linear.lora) return y;
  const auto add_adapter = [&](const Matrix<T>& input) {
    if (linear.lora->magnitude.size() > 0) {
      dora_forward(linear, context.scaling(projection), context.compute_dtype, input, y);
    } else {
      lora_forward(*linear.lora, context.scaling(projection), context.compute_dtype, input, y);
    }
  };
  if (context.lora_dropout == 0) {
    add_adapter(x);
  } else {
    Matrix<T> dropped = x;
    drop(context, projection, dropped);
    add_adapter(dropped);
  }
  return y;
}

/// dx = dy W + mask(the adapter's gradient of its input), or empty where it is not needed; adds to the adapter's
/// gradients.
template <typename T>
Matrix<T> project_backward(const LayerContext<T>& context, const LayerWeights<T>& weights, Projection projection,
                           const Matrix<T>& x, const Matrix<T>& dy, LayerGradients<T>& gradients) {
  const auto index = static_cast<std::size_t>(projection);
  const LinearWeights<T>& linear = weights.projections[index];
  const DType compute = context.compute_dtype;
  const bool is_first = projection == Projection::q || projection == Projection::k || projection == Projection::v;
  const bool needs_dx = context.needs_input_gradient || !is_first;
  Matrix<T> dx;
  if (needs_dx) dx = linear4bit_backward(linear, compute, dy);
  if (!linear.lora) return dx;
  const double scaling = context.scaling(projection);
  const bool drops = context.lora_dropout != 0;
  Matrix<T> dropped;
  if (drops) {
    dropped = x;
    drop(context, projection, dropped);
  }
  const Matrix<T>& input = drops ? dropped : x;
  const bool is_dora = linear.lora->magnitude.size() > 0;
  if (!is_dora && !(drops && needs_dx)) {
    const Matrix<T> inner = lora_inner_backward(*linear.lora, scaling, compute, input, dy, gradients[index]);
    if (needs_dx) add_times(inner, linear.lora->a, compute, dx);
    return dx;
  }
  Matrix<T> branch = is_dora ? dora_backward(linear, scaling, compute, input, dy, gradients[index])
                             : lora_backward(*linear.lora, scaling, compute, input, dy, gradients[index]);
  if (!needs_dx) return dx;
  if (drops) drop(context, projection, branch);
  add_rounded(branch, compute, dx);
  return dx;
}

}  // namespace

template <typename T>
std::int64_t LayerActivations<T>::bytes() const {
  std::int64_t elements = 0;
  for (const Matrix<T>* kept : {&attention_input, &query_projected, &key_projected, &query, &key, &value,
                                &attention_output, &mlp_residual, &mlp_input, &gate, &up}) {
    elements += kept->size();
  }
  return elements * static_cast<std::int64_t>(sizeof(T));
}

template <typename T>
Matrix<T> layer_forward(const LayerContext<T>& context, const LayerWeights<T>& weights, const Matrix<T>& x,
                        LayerActivations<T>* activations) {
  const ModelConfig& config = *context.config;
  const DType compute = context.compute_dtype;
  LayerActivations<T> local;
  LayerActivations<T>& kept = activations != nullptr ? *activations : local;

  kept.attention_input = rmsnorm_forward(x, weights.input_norm, config.rms_norm_eps, compute);
  kept.query = project(context, weights, Projection::q, kept.attention_input);
  kept.key = project(context, weights, Projection::k, kept.attention_input);
  kept.value = project(context, weights, Projection::v, kept.attention_input);
  if (config.qk_norm) {
    kept.query_projected = std::move(kept.query);
    kept.key_projected = std::move(kept.key);
    kept.query = rmsnorm_forward(kept.query_projected, weights.query_norm, config.rms_norm_eps, compute);
    kept.key = rmsnorm_forward(kept.key_projected, weights.key_norm, config.rms_norm_eps, compute);
  }
  const std::vector<std::int64_t> first = context.cache ? context.cache->lengths() : std::vector<std::int64_t>{};
  rope_forward(*context.batch, *context.rope, compute, kept.query, first);
  rope_forward(*context.batch, *context.rope, compute, kept.key, first);
  const AttentionShape shape = attention_shape(config, context.layer);
  if (context.cache == nullptr) {
    kept.attention_output = attention_forward(*context.batch, shape, compute, kept.query, kept.key, kept.value);
  } else {
    context.cache->append(*context.batch, kept.key, kept.value);
    kept.attention_output = attention_forward(*context.batch, shape, compute, kept.query, context.cache->key(),
                                              context.cache->value(), context.cache->offsets());
  }
  if (context.read != nullptr) kept.attention_output = read_rows(context, kept.attention_output);
  kept.mlp_residual = project(context, weights, Projection::o, kept.attention_output);
  if (context.read != nullptr) {
    add_rounded(read_rows(context, x), compute, kept.mlp_residual);
  } else {
    add_rounded(x, compute, kept.mlp_residual);
  }

  kept.mlp_input = rmsnorm_forward(kept.mlp_residual, weights.post_attention_norm, config.rms_norm_eps, compute);
  kept.gate = project(context, weights, Projection::gate, kept.mlp_input);
  kept.up = project(context, weights, Projection::up, kept.mlp_input);
  Matrix<T> y = project(context, weights, Projection::down, swiglu_forward(kept.gate, kept.up, compute));
  add_rounded(kept.mlp_residual, compute, y);
  if (context.read != nullptr) return spread_rows(context, y);
  return y;
}

template <typename T>
Matrix<T> layer_backward(const LayerContext<T>& context, const LayerWeights<T>& weights, const Matrix<T>& x,
                         const LayerActivations<T>& activations, const Matrix<T>& dy, LayerGradients<T>& gradients) {
  const ModelConfig& config = *context.config;
  const DType compute = context.compute_dtype;
  const auto through = [&](Projection projection, const Matrix<T>& input, const Matrix<T>& gradient) {
    return project_backward(context, weights, projection, input, gradient, gradients);
  };

  const Matrix<T> some = context.read != nullptr ? read_rows(context, dy) : Matrix<T>();
  const Matrix<T>& dread = context.read != nullptr ? some : dy;
  const Matrix<T> dhidden = through(Projection::down, swiglu_forward(activations.gate, activations.up, compute), dread);
  const SwigluGradients<T> dswiglu = swiglu_backward(activations.gate, activations.up, compute, dhidden);
  Matrix<T> dmlp_input = through(Projection::up, activations.mlp_input, dswiglu.up);
  add_rounded(through(Projection::gate, activations.mlp_input, dswiglu.gate), compute, dmlp_input);
  Matrix<T> dresidual =
      rmsnorm_backward(activations.mlp_residual, weights.post_attention_norm, config.rms_norm_eps, compute, dmlp_input);
  add_rounded(dread, compute, dresidual);

  Matrix<T> dattention = through(Projection::o, activations.attention_output, dresidual);
  if (context.read != nullptr) {
    dattention = spread_rows(context, dattention);
    dresidual = spread_rows(context, dresidual);
  }
  AttentionGradients<T> dheads = attention_backward(*context.batch, attention_shape(config, context.layer), compute,
                                                    activations.query, activations.key, activations.value, dattention);
  rope_backward(*context.batch, *context.rope, compute, dheads.query);
  rope_backward(*context.batch, *context.rope, compute, dheads.key);
  if (config.qk_norm) {
    dheads.query =
        rmsnorm_backward(activations.query_projected, weights.query_norm, config.rms_norm_eps, compute, dheads.query);
    dheads.key =
        rmsnorm_backward(activations.key_projected, weights.key_norm, config.rms_norm_eps, compute, dheads.key);
  }
  Matrix<T> dattention_input = through(Projection::v, activations.attention_input, dheads.value);
  const Matrix<T> dkey_input = through(Projection::k, activations.attention_input, dheads.key);
  const Matrix<T> dquery_input = through(Projection::q, activations.attention_input, dheads.query);
  if (!context.needs_input_gradient) return {};
  add_rounded(dkey_input, compute, dattention_input);
  add_rounded(dquery_input, compute, dattention_input);
  Matrix<T> dx = rmsnorm_backward(x, weights.input_norm, config.rms_norm_eps, compute, dattention_input);
  add_rounded(dresidual, compute, dx);
  return dx;
}

template struct LayerActivations<float>;
template struct LayerActivations<double>;
template Matrix<float> layer_forward(const LayerContext<float>&, const LayerWeights<float>&, const Matrix<float>&,
                                     LayerActivations<float>*);
template Matrix<double> layer_forward(const LayerContext<double>&, const LayerWeights<double>&, const Matrix<double>&,
                                      LayerActivations<double>*);
template Matrix<float> layer_backward(const LayerContext<float>&, const LayerWeights<float>&, const Matrix<float>&,
                                      const LayerActivations<float>&, const Matrix<float>&, LayerGradients<float>&);
template Matrix<double> layer_backward(const LayerContext<double>&, const LayerWeights<double>&, const Matrix<double>&,
                                       const LayerActivations<double>&, const Matrix<double>&, LayerGradients<double>&);

}  // namespace qshard::reference
