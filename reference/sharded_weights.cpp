#include "reference/sharded_weights.h"

#include <utility>

#include "core/base/error.h"
#include "core/formats/bnb_checkpoint.h"
#include "reference/quantize.h"
#include "reference/stage_range.h"

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
                               std::vector<MemoryLedger>& ranks)
    : index_(layout), head_stage_(layout.units.back().stage), infos_(head_stage_ + 1) {
  units_.reserve(layout.units.size());
  for (const Unit& unit : layout.units) units_.emplace_back(unit, layout.shards, group, ranks);
  load(checkpoint, quantization);
}

const Slot& ShardedWeights::slot(const SlotPlace& place) const {
  return units_[place.unit].layout().flats[place.flat].slots[place.slot];
}

void ShardedWeights::load(const HfCheckpoint& checkpoint, const QuantizationOptions& quantization) {
  for (std::size_t unit = 0; unit < units_.size(); ++unit) {
    const Unit& layout = units_[unit].layout();
    for (std::size_t flat = 0; flat < layout.flats.size(); ++flat) {
      for (std::size_t slot = 0; slot < layout.flats[flat].slots.size(); ++slot) {
        const Parameter& parameter = layout.flats[flat].slots[slot].parameter;
        if (parameter.kind == ParameterKind::codes) {
          load_weight4bit(layout.stage, parameter, checkpoint, quantization);
        } else if (parameter.kind == ParameterKind::dense || parameter.is_trained_whole()) {
          store({unit, flat, slot}, read_dense(checkpoint, parameter).bytes());
        }
      }
    }
  }
}

void ShardedWeights::load_weight4bit(std::size_t stage, const Parameter& codes, const HfCheckpoint& checkpoint,
                                     const QuantizationOptions& quantization) {
  const std::string& name = codes.name;
  Weight4bit weight;
  if (has_weight4bit(checkpoint, name)) {
    weight = read_weight4bit(checkpoint, name);
  } else {
    weight = quantize_weight(checkpoint.tensor(name), quantization, name);
  }
  const auto place = [&](ParameterRole role) { return *index_.find(stage, role, codes.projection); };
  store(place(ParameterRole::weight), std::as_bytes(std::span(weight.codes)));
  if (weight.info.nested) {
    store(place(ParameterRole::absmax), std::as_bytes(std::span(weight.absmax_codes)));
    store(place(ParameterRole::nested_absmax), std::as_bytes(std::span(weight.nested_absmax)));
  } else {
    store(place(ParameterRole::absmax), std::as_bytes(std::span(weight.absmax)));
  }
  infos_[stage][static_cast<std::size_t>(codes.projection)] = weight.info;
}

void ShardedWeights::store(const SlotPlace& place, std::span<const std::byte> bytes) {
  units_[place.unit].store(place.flat, slot(place), bytes);
}

std::span<ShardedUnit> ShardedWeights::units_of(std::size_t stage) {
  return stage_range(units_, stage, [](const ShardedUnit& unit) { return unit.layout().stage; });
}

void ShardedWeights::gather(std::size_t stage) {
  for (ShardedUnit& unit : units_of(stage)) unit.gather();
}

void ShardedWeights::release(std::size_t stage) {
  for (ShardedUnit& unit : units_of(stage)) unit.release();
}

TensorView ShardedWeights::gathered(std::size_t rank, std::size_t stage, ParameterRole role,
                                    Projection projection) const {
  const SlotPlace* place = index_.find(stage, role, projection);
  if (place == nullptr) return {};
  const GatheredFlats flats = units_[place->unit].gathered(rank);
  if (flats.empty()) return {};
  const Slot& found = slot(*place);
  return {found.parameter.dtype, found.parameter.shape,
          flats[place->flat].subspan(static_cast<std::size_t>(found.offset),
                                     static_cast<std::size_t>(found.parameter.bytes()))};
}

Vector<float> ShardedWeights::vector(std::size_t rank, std::size_t stage, ParameterRole role,
                                     Projection projection) const {
  const TensorView values = gathered(rank, stage, role, projection);
  return values.bytes.empty() ? Vector<float>() : to_vector(values);
}

LinearWeights<float> ShardedWeights::linear(std::size_t rank, std::size_t stage, Projection projection) const {
  const auto part = [&](ParameterRole role) { return gathered(rank, stage, role, projection); };
  LinearWeights<float> weights;
  const TensorView weight = part(ParameterRole::weight);
  const std::optional<Weight4bitInfo>& info = infos_[stage][static_cast<std::size_t>(projection)];
  if (!info) {
    weights.dense = weight;
  } else {
    Weight4bitView view{&*info, as<std::uint8_t>(weight), {}, {}, {}};
    if (info->nested) {
      view.absmax_codes = as<std::uint8_t>(part(ParameterRole::absmax));
      view.nested_absmax = as<float>(part(ParameterRole::nested_absmax));
    } else {
      view.absmax = as<float>(part(ParameterRole::absmax));
    }
    weights.quantized = view;
  }
  weights.bias = vector(rank, stage, ParameterRole::bias, projection);
  if (index_.find(stage, ParameterRole::lora_a, projection) != nullptr) {
    weights.lora = Lora<float>{to_matrix<float>(part(ParameterRole::lora_a), DType::f32),
                               to_matrix<float>(part(ParameterRole::lora_b), DType::f32),
                               vector(rank, stage, ParameterRole::lora_bias, projection),
                               vector(rank, stage, ParameterRole::dora_magnitude, projection)};
  }
  return weights;
}

LayerWeights<float> ShardedWeights::layer(std::int64_t layer, std::size_t rank) const {
  const auto stage = stage_of_layer(layer);
  LayerWeights<float> weights;
  weights.input_norm = vector(rank, stage, ParameterRole::input_norm);
  weights.post_attention_norm = vector(rank, stage, ParameterRole::post_attention_norm);
  weights.query_norm = vector(rank, stage, ParameterRole::query_norm);
  weights.key_norm = vector(rank, stage, ParameterRole::key_norm);
  for (std::size_t i = 0; i < kProjections; ++i) {
    weights.projections[i] = linear(rank, stage, static_cast<Projection>(i));
  }
  return weights;
}

EndWeights<float> ShardedWeights::ends(std::size_t rank) const {
  const bool tied = index_.find(head_stage_, ParameterRole::output_head) == nullptr;
  EndWeights<float> weights;
  weights.embedding = gathered(rank, 0, ParameterRole::embedding);
  weights.output_head = tied ? weights.embedding : gathered(rank, head_stage_, ParameterRole::output_head);
  weights.final_norm = vector(rank, head_stage_, ParameterRole::final_norm);
  return weights;
}

}  // namespace qshard::reference
