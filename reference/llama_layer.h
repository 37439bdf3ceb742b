#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/model/model_config.h"
#include "core/model/module_table.h"
#include "core/training/token_batch.h"
#include "reference/key_value_cache.h"
#include "reference/linear4bit.h"
#include "reference/matrix.h"
#include "reference/rope.h"

namespace qshard::reference {

template <typename T>
struct LayerWeights {
  Vector<T> input_norm;
  Vector<T> post_attention_norm;
  Vector<T> query_norm;  // of each head of q, [head_dim]; empty: none
  Vector<T> key_norm;    // of each head of k
  std::array<LinearWeights<T>, kProjections> projections;
};

/// Gradients of the adapters, zero-filled or to be added to; empty matrices where a projection has no adapter.
template <typename T>
using LayerGradients = std::array<Lora<T>, kProjections>;

/// What a layer needs besides its weights and input.
template <typename T>
struct LayerContext {
  const ModelConfig* config = nullptr;
  const RopeTable<T>* rope = nullptr;
  const TokenBatch* batch = nullptr;                                 // row boundaries and ids
  DType compute_dtype = DType::f32;                                  // each operation's result is rounded to it
  double lora_scaling = 1.0;                                         // alpha / r
  std::array<std::optional<double>, kProjections> module_scaling{};  // of a linear layer with another alpha / r
  double lora_dropout = 0.0;                                         // 0 in evaluation
  std::uint64_t dropout_seed = 0;  // with step, layer, projection, row id and position: the counter of the mask
  std::uint64_t step = 0;
  std::uint32_t layer = 0;
  KeyValueCache<T>* cache = nullptr;  // of this layer, where earlier tokens of the rows are not in the batch
  // The tokens whose output is read, ascending; null: all. Only without dropout, whose masks count all tokens.
  const std::vector<Eigen::Index>* read = nullptr;
  bool needs_input_gradient = true;  // false: nothing below this layer is trained

  [[nodiscard]] double scaling(Projection projection) const {
    return module_scaling[static_cast<std::size_t>(projection)].value_or(lora_scaling);
  }
};

/// What the backward pass needs of a forward pass; without recomputation kept from it, with recomputation made again.
/// From attention_output on it has the rows of the tokens that are read.
template <typename T>
struct LayerActivations {
  Matrix<T> attention_input;   // after input_norm                       [tokens, hidden]
  Matrix<T> query_projected;   // before the norm of its heads; empty where the model has none
  Matrix<T> key_projected;     // the same of the keys
  Matrix<T> query;             // after RoPE                             [tokens, heads * head_dim]
  Matrix<T> key;               // after RoPE                             [tokens, kv_heads * head_dim]
  Matrix<T> value;             //                                        [tokens, kv_heads * head_dim]
  Matrix<T> attention_output;  // before o_proj                          [tokens, heads * head_dim]
  Matrix<T> mlp_residual;      // x + attention                          [tokens, hidden]
  Matrix<T> mlp_input;         // after post_attention_norm              [tokens, hidden]
  Matrix<T> gate;              //                                        [tokens, intermediate]
  Matrix<T> up;                //                                        [tokens, intermediate]

  [[nodiscard]] std::int64_t bytes() const;
};

/// y = layer(x), x [tokens, hidden], with the window, the biases and the norms over heads that the model has; fills
/// `activations` where given. With a cache the tokens are the next ones of its rows and are appended to it; then there
/// is no backward pass. Behind attention nothing is computed of tokens that are not read: their rows of y are 0.
/// Deterministic on any number of threads.
template <typename T>
Matrix<T> layer_forward(const LayerContext<T>& context, const LayerWeights<T>& weights, const Matrix<T>& x,
                        LayerActivations<T>* activations);

/// Returns dx for the layer's input x, given dy and the activations of a forward pass over the same x, and adds the
/// adapters' gradients to `gradients`. The gradient of x goes through the dequantized weights; frozen weights get none.
/// The rows of dy of tokens that are not read are not looked at. dx is empty where it is not needed.
template <typename T>
Matrix<T> layer_backward(const LayerContext<T>& context, const LayerWeights<T>& weights, const Matrix<T>& x,
                         const LayerActivations<T>& activations, const Matrix<T>& dy, LayerGradients<T>& gradients);

}  // namespace qshard::reference
