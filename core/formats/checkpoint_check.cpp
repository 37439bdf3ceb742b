#include "core/formats/checkpoint_check.h"

#include <algorithm>
#include <array>
#include <map>

#include "core/base/error.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/model/model_parameters.h"

namespace qshard {
namespace {

// Buffers of older files: what they hold follows from config.json.
constexpr std::array<std::string_view, 2> kBuffers{".rotary_emb.inv_freq", ".masked_bias"};

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

std::string where_of(const HfCheckpoint& checkpoint, const std::string& name) {
  return fmt::format("{}: tensor \"{}\"", checkpoint.file_of(name).string(), name);
}

void check_quantization(const HfCheckpoint& checkpoint) {
  const bool says = checkpoint.config().prequantized_4bit;
  const std::int64_t found = count_weights4bit(checkpoint) + (has_weight4bit(checkpoint, kHead) ? 1 : 0);
  const std::string config = (checkpoint.directory() / "config.json").string();
  if (says && found == 0) {
    fail_input(
        "{}: quantization_config says that the weights are 4-bit, but none is (a merged model that kept it?); remove "
        "quantization_config",
        config);
  }
  if (!says && found > 0) {
    fail_input("{}: {} weights are 4-bit, but there is no quantization_config; put back the one they were written with",
               config, found);
  }
}

using Shapes = std::map<std::string, Shape, std::less<>>;

/// The tensors that config.json has a place for.
Shapes expected_shapes(const ModelConfig& config) {
  QuantizationOptions dense;
  dense.load_in_4bit = false;
  const auto none = [](const std::string&, const Shape&) { return std::optional<Weight4bitInfo>(); };
  Shapes shapes;
  for (const ModelStage& stage : list_model_stages(config, dense, {}, DType::f32, none)) {
    for (const Parameter& parameter : stage.parameters) {
      if (parameter.kind != ParameterKind::trained) shapes[parameter.name] = parameter.shape;
    }
  }
  return shapes;
}

void check_tensor(const HfCheckpoint& checkpoint, const std::string& name, const Shape& wanted) {
  const bool is_4bit = has_weight4bit(checkpoint, name);
  const Shape found = is_4bit ? read_weight4bit_info(checkpoint, name).shape : checkpoint.tensor(name).shape;
  if (!is_4bit && !is_floating(checkpoint.tensor(name).dtype)) {
    fail_input("{} is {}, but must be floating-point; weights of other quantizers are not read",
               where_of(checkpoint, name), torch_name(checkpoint.tensor(name).dtype));
  }
  if (found != wanted) {
    fail_input("{} {} shape {}, but config.json asks for {}", where_of(checkpoint, name),
               is_4bit ? "is a 4-bit weight of" : "has", to_string(found), to_string(wanted));
  }
}

/// The weight that a 4-bit part such as "<weight>.absmax" belongs to, or the name itself.
std::string_view owner(const Shapes& names, std::string_view name) {
  for (std::size_t dot = name.rfind('.'); dot != std::string_view::npos && dot > 0; dot = name.rfind('.', dot - 1)) {
    if (names.contains(name.substr(0, dot))) return name.substr(0, dot);
  }
  return name;
}

}  // namespace

std::int64_t count_weights4bit(const HfCheckpoint& checkpoint) {
  std::int64_t count = 0;
  for (const LinearModule& module : linear_modules(checkpoint.config())) {
    if (has_weight4bit(checkpoint, module.name + ".weight")) ++count;
  }
  return count;
}

void check_checkpoint(const HfCheckpoint& checkpoint) {
  check_quantization(checkpoint);
  check_tensors(checkpoint);
}

void check_tensors(const HfCheckpoint& checkpoint) {
  if (has_weight4bit(checkpoint, kEmbedding)) {
    fail_input(
        "{} is quantized to 4 bits, which is supported for linear layers only; qshard dequantize writes a checkpoint "
        "without 4-bit weights",
        where_of(checkpoint, kEmbedding));
  }
  const Shapes expected = expected_shapes(checkpoint.config());
  for (const auto& [name, shape] : expected) check_tensor(checkpoint, name, shape);
  for (const std::string& name : checkpoint.names()) {
    const bool is_buffer = std::ranges::any_of(kBuffers, [&](const auto& end) { return name.ends_with(end); });
    const bool is_tied_head = name == kHead && checkpoint.config().tie_word_embeddings;  // equal to the embedding
    const std::string_view weight = owner(expected, name);
    const bool is_part = weight != name && has_weight4bit(checkpoint, weight);
    if (is_buffer || is_tied_head || is_part || expected.contains(name)) continue;
    fail_input(
        "{}: config.json has no place for it, so the model would not be what was trained; is it another model's?",
        where_of(checkpoint, name));
  }
}

}  // namespace qshard
