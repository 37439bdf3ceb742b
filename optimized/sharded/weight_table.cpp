#include "optimized/sharded/weight_table.h"

#include <iterator>

namespace qshard::optimized {

namespace {

using Places = std::map<std::string, SlotPlace>;

Places all_places(const ShardLayout& layout) {
  Places places;
  for (std::size_t unit = 0; unit < layout.units.size(); ++unit) {
    for (std::size_t flat = 0; flat < layout.units[unit].flats.size(); ++flat) {
      const std::vector<Slot>& slots = layout.units[unit].flats[flat].slots;
      for (std::size_t slot = 0; slot < slots.size(); ++slot) places[slots[slot].parameter.name] = {unit, flat, slot};
    }
  }
  return places;
}

SlotPlace find(const Places& places, const std::string& name) {
  const auto found = places.find(name);
  return found == places.end() ? SlotPlace{} : found->second;
}

}  // namespace

WeightTable::WeightTable(const ModelConfig& config, const ShardLayout& layout,
                         const std::map<std::string, Weight4bitInfo>& infos, DType dtype, double lora_alpha,
                         const float* nested_constants)
    : layout_(&layout), lora_alpha_(lora_alpha) {
  const Places places = all_places(layout);
  const auto modules = layer_modules(config);
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    LayerPlaces& of = layers_.emplace_back();
    const auto norm = [&](const char* name) { return find(places, module_path(layer, name) + ".weight"); };
    of.input_norm = norm("input_layernorm");
    of.post_attention_norm = norm("post_attention_layernorm");
    of.query_norm = norm("self_attn.q_norm");
    of.key_norm = norm("self_attn.k_norm");
    for (std::size_t role = 0; role < kProjections; ++role) {
      const std::string module = module_path(layer, modules[role].name);
      const std::string weight = module + ".weight";
      LinearPlaces& linear = of.projections[role];
      linear.weight = find(places, weight);
      linear.absmax = find(places, weight + ".absmax");
      linear.nested_absmax = find(places, weight + ".nested_absmax");
      linear.bias = find(places, module + ".bias");
      linear.lora_a = find(places, module + ".lora_A.weight");
      linear.lora_b = find(places, module + ".lora_B.weight");
      linear.shape.out = modules[role].out;
      linear.shape.in = modules[role].in;
      linear.shape.dtype = dtype;
      const auto info = infos.find(weight);
      if (info == infos.end()) continue;
      linear.shape.in_4bit = true;
      DeviceWeight4bit& quantized = linear.shape.quantized;
      quantized.quant_type = info->second.quant_type;
      quantized.blocksize = info->second.blocksize;
      quantized.elements = element_count(info->second.shape);
      if (!info->second.nested || nested_constants == nullptr) continue;
      quantized.nested_map = nested_constants + std::distance(infos.begin(), info) * kNestedConstants;
      quantized.offset = quantized.nested_map + 256;
    }
  }
  embedding_ = find(places, "model.embed_tokens.weight");
  final_norm_ = find(places, "model.norm.weight");
  output_head_ = find(places, "lm_head.weight");
  if (!output_head_.present()) output_head_ = embedding_;
}

const Slot& WeightTable::slot(const SlotPlace& place) const {
  return layout_->units[place.unit].flats[place.flat].slots[place.slot];
}

const void* WeightTable::parameter(const SlotPlace& place, const UnitGatherer& gatherer) const {
  if (!place.present()) return nullptr;
  const std::byte* flat = gatherer.flat(place.unit, place.flat);
  return flat == nullptr ? nullptr : flat + slot(place).offset;
}

float* WeightTable::gradient(const SlotPlace& place, const AdapterOptimizer* optimizer) const {
  if (optimizer == nullptr) return nullptr;
  float* flat = optimizer->gradients(place.unit, place.flat);
  const Slot& of = slot(place);
  return flat == nullptr ? nullptr : flat + of.offset / static_cast<std::int64_t>(size_of(of.parameter.dtype));
}

LinearPointers WeightTable::linear(const LinearPlaces& places, const UnitGatherer& gatherer,
                                   const AdapterOptimizer* optimizer) const {
  LinearPointers pointers;
  pointers.weight = places.shape;
  const void* weight = parameter(places.weight, gatherer);
  if (places.shape.in_4bit) {
    DeviceWeight4bit& quantized = pointers.weight.quantized;
    quantized.codes = static_cast<const std::uint8_t*>(weight);
    const void* absmax = parameter(places.absmax, gatherer);
    if (places.nested_absmax.present()) {
      quantized.absmax_codes = static_cast<const std::uint8_t*>(absmax);
      quantized.nested_absmax = static_cast<const float*>(parameter(places.nested_absmax, gatherer));
    } else {
      quantized.absmax = static_cast<const float*>(absmax);
    }
  } else {
    pointers.weight.dense = weight;
  }
  pointers.bias = parameter(places.bias, gatherer);
  if (places.lora_a.present()) {
    pointers.lora.rank = slot(places.lora_a).parameter.shape[0];
    pointers.lora.scaling = lora_alpha_ / static_cast<double>(pointers.lora.rank);
    pointers.lora.a = parameter(places.lora_a, gatherer);
    pointers.lora.b = parameter(places.lora_b, gatherer);
    pointers.lora.a_gradient = gradient(places.lora_a, optimizer);
    pointers.lora.b_gradient = gradient(places.lora_b, optimizer);
  }
  return pointers;
}

LayerWeights WeightTable::layer(std::int64_t layer, const UnitGatherer& gatherer,
                                const AdapterOptimizer* optimizer) const {
  const LayerPlaces& places = layers_[static_cast<std::size_t>(layer)];
  LayerWeights weights;
  weights.input_norm = parameter(places.input_norm, gatherer);
  weights.post_attention_norm = parameter(places.post_attention_norm, gatherer);
  weights.query_norm = parameter(places.query_norm, gatherer);
  weights.key_norm = parameter(places.key_norm, gatherer);
  for (std::size_t role = 0; role < kProjections; ++role) {
    weights.projections[role] = linear(places.projections[role], gatherer, optimizer);
  }
  return weights;
}

}  // namespace qshard::optimized
