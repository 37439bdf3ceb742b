#pragma once

#include <vector>

#include "correctness/matrix_testing.h"
#include "reference/llama_ends.h"
#include "reference/llama_layer.h"
#include "reference/quantize.h"

namespace qshard::reference {

/// A random model of two layers, hidden 16, with grouped queries, odd sizes, NF4 weights (its first layer's k_proj
/// stays dense) and an adapter on every projection but the second layer's up_proj. With `every_flag` it has what any
/// family has: all biases, norms over heads, a window of 3 keys in its second layer, a yarn table.
template <typename T>
class SmallLlama {
 public:
  static constexpr std::size_t kLayers = 2;
  static constexpr std::int32_t kVocabulary = 11;

  explicit SmallLlama(DType compute, double dropout, bool every_flag = false) {
    config.hidden_size = 16;
    config.intermediate_size = 20;
    config.num_hidden_layers = kLayers;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.head_dim = 6;
    config.vocab_size = kVocabulary;
    config.rms_norm_eps = 1e-5;
    config.rope.theta = 10000;
    if (every_flag) set_every_flag();
    batch = random_batch({5, 1, 7}, kVocabulary, 1);
    rope = make_rope_table<T>(config, 16, compute);
    context = {.config = &config,
               .rope = &rope,
               .batch = &batch,
               .compute_dtype = compute,
               .lora_scaling = 1.5,
               .lora_dropout = dropout,
               .dropout_seed = 99,
               .step = 3,
               .layer = 0};
    storage.reserve(kLayers * kProjections + 2);
    embedding = random_tensor(kVocabulary, 16, 1.0F);
    head = random_tensor(kVocabulary, 16, 0.5F);
    ends = {embedding.view(), random_vector(16), head.view()};
    for (std::size_t layer = 0; layer < kLayers; ++layer) layers.push_back(random_layer(layer));
  }
  SmallLlama(const SmallLlama&) = delete;
  SmallLlama& operator=(const SmallLlama&) = delete;

  LayerContext<T> layer_context(std::size_t layer) const {
    LayerContext<T> result = context;
    result.layer = static_cast<std::uint32_t>(layer);
    return result;
  }

  double loss() const {
    Matrix<T> x = embed(ends, batch);
    for (std::size_t layer = 0; layer < kLayers; ++layer) {
      x = layer_forward<T>(layer_context(layer), layers[layer], x, nullptr);
    }
    return output_loss<T>(context, ends, x, 1, nullptr);
  }

  /// Gradients of loss() times `scale` for every adapter.
  std::vector<LayerGradients<T>> gradients(double scale) const {
    std::vector<Matrix<T>> inputs{embed(ends, batch)};
    std::vector<LayerActivations<T>> kept(kLayers);
    for (std::size_t layer = 0; layer < kLayers; ++layer) {
      inputs.push_back(layer_forward(layer_context(layer), layers[layer], inputs[layer], &kept[layer]));
    }
    Matrix<T> dx;
    output_loss(context, ends, inputs[kLayers], scale, &dx);
    std::vector<LayerGradients<T>> result;
    for (const LayerWeights<T>& weights : layers) result.push_back(zero_gradients(weights));
    for (std::size_t layer = kLayers; layer-- > 0;) {
      dx = layer_backward(layer_context(layer), layers[layer], inputs[layer], kept[layer], dx, result[layer]);
    }
    return result;
  }

  static LayerGradients<T> zero_gradients(const LayerWeights<T>& weights) {
    LayerGradients<T> gradients;
    for (std::size_t i = 0; i < kProjections; ++i) {
      if (weights.projections[i].lora) gradients[i] = zeros_like(*weights.projections[i].lora);
    }
    return gradients;
  }

  ModelConfig config;
  TokenBatch batch;
  RopeTable<T> rope;
  LayerContext<T> context;
  EndWeights<T> ends;
  std::vector<LayerWeights<T>> layers;

 private:
  void set_every_flag() {
    config.qkv_bias = config.o_bias = config.mlp_bias = true;
    config.qk_norm = true;
    config.sliding_window = 3;
    config.layer_has_window = {false, true};
    config.rope = {.type = RopeType::yarn, .factor = 4, .original_max_position_embeddings = 8, .attention_factor = 1.2};
  }

  Tensor random_tensor(std::int64_t rows, std::int64_t cols, float scale) {
    const Matrix<float> values = scale * random_matrix<float>(rows, cols, ++seed);
    return from_floats({values.data(), static_cast<std::size_t>(values.size())}, DType::f32, {rows, cols});
  }

  Vector<T> random_vector(std::int64_t size) {
    return Vector<T>::Ones(size) + T(0.3) * random_matrix<T>(size, 1, ++seed);
  }

  LayerWeights<T> random_layer(std::size_t layer) {
    LayerWeights<T> weights;
    weights.input_norm = random_vector(16);
    weights.post_attention_norm = random_vector(16);
    if (config.qk_norm) {
      weights.query_norm = random_vector(config.head_dim);
      weights.key_norm = random_vector(config.head_dim);
    }
    const auto table = layer_modules(config);
    constexpr std::int64_t kSizes[kProjections][2] = {{24, 16}, {12, 16}, {12, 16}, {16, 24},
                                                      {20, 16}, {20, 16}, {16, 20}};  // out, in
    for (std::size_t i = 0; i < kProjections; ++i) {
      LinearWeights<T>& linear = weights.projections[i];
      const auto [out, in] = kSizes[i];
      storage.push_back({random_tensor(out, in, 0.3F), {}});
      Stored& stored = storage.back();
      if (layer == 0 && i == static_cast<std::size_t>(Projection::k)) {
        linear.dense = stored.dense.view();
      } else {
        stored.quantized = quantize(stored.dense.view(), {.blocksize = 32}, "w");
        linear.quantized = stored.quantized.view();
      }
      if (table[i].bias) linear.bias = T(0.3) * random_matrix<T>(out, 1, ++seed);
      if (layer == 1 && i == static_cast<std::size_t>(Projection::up)) continue;
      linear.lora = Lora<T>{T(0.3) * random_matrix<T>(3, in, ++seed), T(0.3) * random_matrix<T>(out, 3, ++seed)};
    }
    return weights;
  }

  struct Stored {
    Tensor dense;
    Weight4bit quantized;
  };
  std::vector<Stored> storage;
  Tensor embedding, head;
  std::uint64_t seed = 100;
};

}  // namespace qshard::reference
