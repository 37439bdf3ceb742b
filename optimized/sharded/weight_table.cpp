#include "optimized/sharded/weight_table.h"

#include <iterator>

#include "optimized/sharded/device_shards.h"

namespace qshard::optimized {

namespace {

FrozenWeight frozen_weight(const LinearModule& module, DType dtype) {
  FrozenWeight weight;
  weight.out = module.out;
  weight.in = module.in;
  weight.dtype = dtype;
  return weight;
}

}  // namespace

WeightTable::WeightTable(const ModelConfig& config, const ShardLayout& layout,
                         const std::map<std::string, Weight4bitInfo>& infos, DType dtype, double lora_alpha,
                         const float* nested_constants)
    : layout_(&layout), lora_alpha_(lora_alpha), index_(layout) {
  const auto modules = layer_modules(config);
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    auto& weights = weights_.emplace_back();
    for (std::size_t role = 0; role < kProjections; ++role) {
      weights[role] = frozen_weight(modules[role], dtype);
      const auto info = infos.find(module_path(layer, modules[role].name) + ".weight");
      if (info == infos.end()) continue;
      weights[role].in_4bit = true;
      DeviceWeight4bit& quantized = weights[role].quantized;
      quantized.quant_type = info->second.quant_type;
      quantized.blocksize = info->second.blocksize;
      quantized.elements = element_count(info->second.shape);
      if (!info->second.nested || nested_constants == nullptr) continue;
      quantized.nested_map = nested_constants + std::distance(infos.begin(), info) * kNestedConstants;
      quantized.offset = quantized.nested_map + 256;
    }
  }
}

const SlotPlace& WeightTable::embedding() const {
  return *index_.find(0, ParameterRole::embedding);
}

const SlotPlace& WeightTable::final_norm() const {
  return *index_.find(head_stage(), ParameterRole::final_norm);
}

const SlotPlace& WeightTable::output_head() const {
  const SlotPlace* head = index_.find(head_stage(), ParameterRole::output_head);
  return head == nullptr ? embedding() : *head;
}

const Slot& WeightTable::slot(const SlotPlace& place) const {
  return layout_->units[place.unit].flats[place.flat].slots[place.slot];
}

const void* WeightTable::parameter(const SlotPlace& place, const UnitGatherer& gatherer) const {
  return gatherer.parameter(place.unit, place.flat, slot(place));
}

float* WeightTable::gradient(const SlotPlace& place, const AdapterGradients* gradients) const {
  if (gradients == nullptr) return nullptr;
  float* flat = gradients->flat(place.unit, place.flat);
  const Slot& of = slot(place);
  return flat == nullptr ? nullptr : flat + of.offset / static_cast<std::int64_t>(size_of(of.parameter.dtype));
}

LinearPointers WeightTable::linear(std::int64_t layer, Projection role, const UnitGatherer& gatherer,
                                   const AdapterGradients* gradients) const {
  const auto find = [&](ParameterRole part) { return index_.find(stage_of_layer(layer), part, role); };
  const auto pointer = [&](ParameterRole part) {
    const SlotPlace* place = find(part);
    return place == nullptr ? nullptr : parameter(*place, gatherer);
  };
  LinearPointers pointers;
  pointers.weight = weights_[static_cast<std::size_t>(layer)][static_cast<std::size_t>(role)];
  const void* weight = pointer(ParameterRole::weight);
  if (pointers.weight.in_4bit) {
    DeviceWeight4bit& quantized = pointers.weight.quantized;
    quantized.codes = static_cast<const std::uint8_t*>(weight);
    quantized.resident = gatherer.replicated();
    const void* absmax = pointer(ParameterRole::absmax);
    if (find(ParameterRole::nested_absmax) != nullptr) {
      quantized.absmax_codes = static_cast<const std::uint8_t*>(absmax);
      quantized.nested_absmax = static_cast<const float*>(pointer(ParameterRole::nested_absmax));
    } else {
      quantized.absmax = static_cast<const float*>(absmax);
    }
  } else {
    pointers.weight.dense = weight;
  }
  pointers.bias = pointer(ParameterRole::bias);
  const SlotPlace* a = find(ParameterRole::lora_a);
  if (a == nullptr) return pointers;
  pointers.lora.rank = slot(*a).parameter.shape[0];
  pointers.lora.scaling = lora_alpha_ / static_cast<double>(pointers.lora.rank);
  pointers.lora.a = pointer(ParameterRole::lora_a);
  pointers.lora.b = pointer(ParameterRole::lora_b);
  pointers.lora.a_gradient = gradient(*a, gradients);
  pointers.lora.b_gradient = gradient(*find(ParameterRole::lora_b), gradients);
  return pointers;
}

LayerWeights WeightTable::layer(std::int64_t layer, const UnitGatherer& gatherer,
                                const AdapterGradients* gradients) const {
  const auto norm = [&](ParameterRole role) {
    const SlotPlace* place = index_.find(stage_of_layer(layer), role);
    return place == nullptr ? nullptr : parameter(*place, gatherer);
  };
  LayerWeights weights;
  weights.input_norm = norm(ParameterRole::input_norm);
  weights.post_attention_norm = norm(ParameterRole::post_attention_norm);
  weights.query_norm = norm(ParameterRole::query_norm);
  weights.key_norm = norm(ParameterRole::key_norm);
  for (std::size_t role = 0; role < kProjections; ++role) {
    weights.projections[role] = linear(layer, static_cast<Projection>(role), gatherer, gradients);
  }
  return weights;
}

}  // namespace qshard::optimized
