#include "core/sharding/slot_index.h"

namespace qshard {

SlotIndex::SlotIndex(const ShardLayout& layout) {
  for (std::size_t unit = 0; unit < layout.units.size(); ++unit) {
    const Unit& of = layout.units[unit];
    while (stages_.size() <= of.stage) stages_.emplace_back().fill({kNone, 0, 0});
    for (std::size_t flat = 0; flat < of.flats.size(); ++flat) {
      for (std::size_t slot = 0; slot < of.flats[flat].slots.size(); ++slot) {
        const Parameter& parameter = of.flats[flat].slots[slot].parameter;
        stages_[of.stage][key(parameter.role, parameter.projection)] = {unit, flat, slot};
      }
    }
  }
}

std::size_t SlotIndex::key(ParameterRole role, Projection projection) {
  const auto index = static_cast<std::size_t>(role);
  if (index < kFirstOfModule) return index;
  return kFirstOfModule + (index - kFirstOfModule) * kProjections + static_cast<std::size_t>(projection);
}

const SlotPlace* SlotIndex::find(std::size_t stage, ParameterRole role, Projection projection) const {
  const SlotPlace& place = stages_[stage][key(role, projection)];
  return place.unit == kNone ? nullptr : &place;
}

}  // namespace qshard
