#include "reference/sharded_weights.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/formats/bnb_checkpoint.h"
#include "reference/quantize.h"

namespace qshard::reference {
namespace {

Vector<float> to_vector(const TensorView& tensor) {
  const std::vector<float> values = to_floats(tensor);
  return Eigen::Map<const Vector<float>>(values.data(), static_cast<Eigen::Index>(values.size()));
}

template <typename T>
std::span<const T> as(const TensorView& tensor) {
  return {reinterpret_cast<const T*>(tensor.bytes.data()), tensor.bytes.size() / sizeof(T)};
}

// The checkpoint's tensor in the layout's dtype; its shape must be the layout's.
Tensor read_dense(const HfCheckpoint& checkpoint, const Parameter& parameter) {
  const TensorView tensor = checkpoint.tensor(parameter.name);
  if (tensor.shape != parameter.shape) {
    fail_input("{}: tensor {} has shape {}, but config.json asks for {}", checkpoint.directory().string(),
               parameter.name, to_string(tensor.shape), to_string(parameter.shape));
  }
  if (tensor.dtype == parameter.dtype) return Tensor(tensor);
  return from_floats(to_floats(tensor), parameter.dtype, parameter.shape);
}

}  // namespace

ShardedWeights::ShardedWeights(const ShardLayout& layout, const HfCheckpoint& checkpoint,
                               const QuantizationOptions& quantization, const ProcessGroup& group,
                               std::vector<MemoryLedger>& ranks) {
  units_.reserve(layout.units.size());
  for (const Unit& unit : layout.units) {
    for (std::size_t flat = 0; flat < unit.flats.size(); ++flat) {
      for (std::size_t slot = 0; slot < unit.flats[flat].slots.size(); ++slot) {
        places_[unit.flats[flat].slots[slot].parameter.name] = {units_.size(), flat, slot};
      }
    }
    units_.emplace_back(unit, layout.sharding, group, ranks);
  }
  load(checkpoint, quantization);
}

const Slot& ShardedWeights::slot(const SlotPlace& place) const {
  return units_[place.unit].layout().flats[place.flat].slots[place.slot];
}

const SlotPlace* ShardedWeights::find(const std::string& name) const {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &found->second;
}

void ShardedWeights::load(const HfCheckpoint& checkpoint, const QuantizationOptions& quantization) {
  for (const auto& [name, place] : places_) {
    const Parameter& parameter = slot(place).parameter;
    if (parameter.kind == ParameterKind::codes) {
      load_weight4bit(name, checkpoint, quantization);
    } else if (parameter.kind == ParameterKind::dense) {
      store(name, read_dense(checkpoint, parameter).bytes());
    }
  }
}

void ShardedWeights::load_weight4bit(const std::string& name, const HfCheckpoint& checkpoint,
                                     const QuantizationOptions& quantization) {
  Weight4bit weight;
  if (has_weight4bit(checkpoint, name)) {
    weight = read_weight4bit(checkpoint, name);
  } else {
    QuantizeOptions options;
    options.quant_type = quantization.quant_type;
    options.blocksize = quantization.blocksize;
    options.double_quant = quantization.double_quant;
    options.storage = quantization.quant_storage;
    weight = quantize(checkpoint.tensor(name), options, name);
  }
  store(name, std::as_bytes(std::span(weight.codes)));
  if (weight.info.nested) {
    store(name + ".absmax", std::as_bytes(std::span(weight.absmax_codes)));
    store(name + ".nested_absmax", std::as_bytes(std::span(weight.nested_absmax)));
  } else {
    store(name + ".absmax", std::as_bytes(std::span(weight.absmax)));
  }
  infos_[name] = weight.info;
}

void ShardedWeights::store(const std::string& name, std::span<const std::byte> bytes) {
  const SlotPlace& place = places_.at(name);
  units_[place.unit].store(place.flat, slot(place), bytes);
}

void ShardedWeights::gather(std::size_t stage) {
  for (ShardedUnit& unit : units_) {
    if (unit.layout().stage == stage) unit.gather();
  }
}

void ShardedWeights::release(std::size_t stage) {
  for (ShardedUnit& unit : units_) {
    if (unit.layout().stage == stage) unit.release();
  }
}

TensorView ShardedWeights::gathered(const std::string& name, std::size_t rank) const {
  const SlotPlace& place = places_.at(name);
  const Slot& found = slot(place);
  const std::span<const std::byte> flat = units_[place.unit].gathered(rank)[place.flat];
  return {found.parameter.dtype, found.parameter.shape,
          flat.subspan(static_cast<std::size_t>(found.offset), static_cast<std::size_t>(found.parameter.bytes()))};
}

LinearWeights<float> ShardedWeights::linear(const std::string& module, std::size_t rank) const {
  const std::string name = module + ".weight";
  LinearWeights<float> weights;
  const TensorView weight = gathered(name, rank);
  const auto info = infos_.find(name);
  if (info == infos_.end()) {
    weights.dense = weight;
  } else {
    Weight4bitView view{&info->second, as<std::uint8_t>(weight), {}, {}, {}};
    if (info->second.nested) {
      view.absmax_codes = as<std::uint8_t>(gathered(name + ".absmax", rank));
      view.nested_absmax = as<float>(gathered(name + ".nested_absmax", rank));
    } else {
      view.absmax = as<float>(gathered(name + ".absmax", rank));
    }
    weights.quantized = view;
  }
  if (find(module + ".lora_A.weight") != nullptr) {
    weights.lora = Lora<float>{to_matrix<float>(gathered(module + ".lora_A.weight", rank), DType::f32),
                               to_matrix<float>(gathered(module + ".lora_B.weight", rank), DType::f32)};
  }
  return weights;
}

LayerWeights<float> ShardedWeights::layer(std::int64_t layer, std::size_t rank) const {
  LayerWeights<float> weights;
  weights.input_norm = to_vector(gathered(module_path(layer, "input_layernorm.weight"), rank));
  weights.post_attention_norm = to_vector(gathered(module_path(layer, "post_attention_layernorm.weight"), rank));
  for (std::size_t i = 0; i < kProjections; ++i) {
    weights.projections[i] = linear(module_path(layer, module_name(static_cast<Projection>(i))), rank);
  }
  return weights;
}

EndWeights<float> ShardedWeights::ends(std::size_t rank) const {
  const bool tied = find("lm_head.weight") == nullptr;
  EndWeights<float> weights;
  const auto if_gathered = [this, rank](const std::string& name) {
    const bool here = !units_[places_.at(name).unit].gathered(rank).empty();
    return here ? gathered(name, rank) : TensorView{};
  };
  weights.embedding = if_gathered("model.embed_tokens.weight");
  weights.output_head = tied ? weights.embedding : if_gathered("lm_head.weight");
  const TensorView norm = if_gathered("model.norm.weight");
  if (!norm.bytes.empty()) weights.final_norm = to_vector(norm);
  return weights;
}

}  // namespace qshard::reference
