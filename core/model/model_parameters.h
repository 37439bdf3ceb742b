#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/model/lora_options.h"
#include "core/model/model_config.h"
#include "core/model/module_table.h"
#include "core/model/quantization_options.h"
#include "core/tensor/weight4bit.h"

namespace qshard {

/// What a parameter is to the sharded step.
enum class ParameterKind : std::uint8_t {
  dense,       // frozen, in the model's dtype: norms, biases, embedding, output head, linear layers that are not 4-bit
  codes,       // frozen: packed 4-bit codes, held as quant_storage
  statistics,  // frozen: absmax, absmax codes, nested absmax
  trained,     // an adapter's parameter, or the embedding or output head where they are trained whole
};

/// Which parameter of its stage it is: what an engine finds it by, see SlotIndex.
enum class ParameterRole : std::uint8_t {
  embedding,
  final_norm,
  output_head,
  input_norm,
  post_attention_norm,
  query_norm,  // over each head of q, [head_dim]
  key_norm,    // over each head of k, [head_dim]
  // From here on each linear layer of a decoder layer has its own.
  weight,
  bias,
  absmax,
  nested_absmax,
  lora_a,
  lora_b,
  lora_bias,       // after B, [out]
  dora_magnitude,  // [out]
};

struct Parameter {
  std::string name;  // as in a checkpoint: model.layers.0.self_attn.q_proj.weight, ....weight.absmax, ....lora_A.weight
  ParameterKind kind = ParameterKind::dense;
  DType dtype = DType::bf16;
  Shape shape;
  ParameterRole role = ParameterRole::weight;
  Projection projection = Projection::q;  // of which linear layer, from ParameterRole::weight on

  /// Trained, and begins as the base model has it.
  [[nodiscard]] bool is_trained_whole() const { return kind == ParameterKind::trained && role < ParameterRole::weight; }
  [[nodiscard]] std::int64_t bytes() const { return element_count(shape) * static_cast<std::int64_t>(size_of(dtype)); }
};

/// Parameters that are needed at the same time: the embedding, a decoder layer, the final norm with the output head.
struct ModelStage {
  std::string name;
  std::vector<Parameter> parameters;
};

/// The stage of decoder layer `layer`: stage 0 is the embedding, the last one the head.
constexpr std::size_t stage_of_layer(std::int64_t layer) {
  return static_cast<std::size_t>(layer + 1);
}

/// The decoder layer of a stage between the first and the last.
constexpr std::int64_t layer_of_stage(std::size_t stage) {
  return static_cast<std::int64_t>(stage) - 1;
}

/// How a linear layer's weight (named with its .weight) is already held in 4 bits in the checkpoint, if it is.
using PrequantizedInfo = std::function<std::optional<Weight4bitInfo>(const std::string& name, const Shape& shape)>;

/// The 4-bit form that `options` give a weight of that shape; nested_map and offset are left to quantization.
Weight4bitInfo planned_info(const QuantizationOptions& options, DType dtype, const Shape& shape);

/// The model's stages in the order of the forward pass: embedding, decoder layers, head. With tied embeddings the head
/// has a norm only and uses the embedding again. A linear layer is 4-bit
/// where `prequantized` says so or quantization.load_in_4bit; it has an adapter where lora.target_modules names it.
/// Everything that is not 4-bit, LoRA included, is of `dtype`. Throws Error(bad_input) where no target module matches
/// any layer, and where `prequantized` names another shape than `config` asks for.
std::vector<ModelStage> list_model_stages(const ModelConfig& config, const QuantizationOptions& quantization,
                                          const LoraOptions& lora, DType dtype, const PrequantizedInfo& prequantized);

}  // namespace qshard
