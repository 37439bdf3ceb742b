#include "reference/sharded_adapter.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/formats/peft_adapter.h"
#include "core/model/lora_init.h"
#include "core/training/adapter_state.h"
#include "reference/collectives.h"
#include "reference/dora.h"

namespace qshard::reference {
namespace {

// Calls body(unit, flat, slot) for every trainable slot.
template <typename Body>
void for_each_adapter_slot(ShardedWeights& weights, const Body& body) {
  for (std::size_t unit = 0; unit < weights.units().size(); ++unit) {
    const Unit& layout = weights.units()[unit].layout();
    for (std::size_t flat = 0; flat < layout.flats.size(); ++flat) {
      if (!layout.flats[flat].trainable) continue;
      for (const Slot& slot : layout.flats[flat].slots) body(weights.units()[unit], flat, slot);
    }
  }
}

/// The lengths of a frozen weight's rows: what a new adapter, whose B is zero, has as DoRA's magnitudes. Collective.
std::vector<float> weight_norms(ShardedWeights& weights, std::size_t stage, Projection projection, DType compute) {
  weights.gather(stage);
  const LayerWeights<float> layer = weights.layer(layer_of_stage(stage), 0);
  const Vector<float> norms = dora_norm(layer.projections[static_cast<std::size_t>(projection)], 1.0, compute);
  weights.release(stage);
  return {norms.begin(), norms.end()};
}

}  // namespace

void initialize_adapter(ShardedWeights& weights, const EngineOptions& options) {
  for_each_adapter_slot(weights, [&](ShardedUnit& unit, std::size_t flat, const Slot& slot) {
    const Parameter& parameter = slot.parameter;
    std::vector<float> values;
    if (parameter.role == ParameterRole::lora_a) {
      values = lora_a_values(options.lora.start, options.seed, parameter.name, parameter.shape);
    } else if (parameter.role == ParameterRole::dora_magnitude) {
      values = weight_norms(weights, unit.layout().stage, parameter.projection, options.compute_dtype);
    } else {
      return;
    }
    unit.store(flat, slot, from_floats(values, parameter.dtype, parameter.shape).bytes());
  });
}

NamedTensors read_adapter(const ShardedWeights& weights, const ProcessGroup& group) {
  NamedTensors tensors;
  for (const ShardedUnit& unit : weights.units()) {
    for (std::size_t flat = 0; flat < unit.layout().flats.size(); ++flat) {
      const Flat& layout = unit.layout().flats[flat];
      if (!layout.trainable) continue;
      const std::vector<std::byte> whole = unit.load(flat);
      if (!group.has_first()) continue;
      for (const Slot& slot : layout.slots) {
        const auto bytes = std::span(whole).subspan(static_cast<std::size_t>(slot.offset),
                                                    static_cast<std::size_t>(slot.parameter.bytes()));
        tensors[peft_name(slot.parameter.name)] = Tensor(TensorView{slot.parameter.dtype, slot.parameter.shape, bytes});
      }
    }
  }
  return tensors;
}

void write_adapter(ShardedWeights& weights, const ProcessGroup& group, const NamedTensors& tensors) {
  std::size_t used = 0;
  for_each_adapter_slot(weights, [&](ShardedUnit& unit, std::size_t flat, const Slot& slot) {
    const Parameter& parameter = slot.parameter;
    std::vector<float> values;
    if (group.has_first()) values = named_floats(tensors, peft_name(parameter.name), parameter.shape);
    broadcast(group, values);
    unit.store(flat, slot, from_floats(values, parameter.dtype, parameter.shape).bytes());
    ++used;
  });
  if (group.has_first()) reject_unknown(tensors, used, "adapter");
}

}  // namespace qshard::reference
