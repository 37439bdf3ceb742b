#include "reference/sharded_adapter.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/formats/peft_adapter.h"
#include "reference/collectives.h"
#include "reference/philox.h"

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

// FNV-1a, 64 bits: a fixed number for a name on every platform.
std::uint64_t hash_name(std::string_view name) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  return hash;
}

std::uint32_t low(std::uint64_t value) {
  return static_cast<std::uint32_t>(value);
}

std::uint32_t high(std::uint64_t value) {
  return static_cast<std::uint32_t>(value >> 32);
}

std::vector<float> uniform_values(std::uint64_t seed, const std::string& name, std::int64_t count, float bound) {
  const std::uint64_t stream = hash_name(name);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto words = philox4x32({low(i / 4), high(i / 4), low(stream), high(stream)}, {low(seed), high(seed)});
    const auto unit = static_cast<float>(words[i % 4] >> 8) * 0x1p-24F;  // [0, 1)
    values[i] = (2.0F * unit - 1.0F) * bound;
  }
  return values;
}

// The pieces of a slot in shards of one float for each of its elements.
std::vector<ShardPiece> element_pieces(const Slot& slot, const std::vector<std::vector<float>>& shards) {
  const auto element_bytes = static_cast<std::int64_t>(size_of(slot.parameter.dtype));
  return cut_into_pieces(slot.offset / element_bytes, element_count(slot.parameter.shape), std::ssize(shards.front()));
}

}  // namespace

std::vector<float> named_floats(const NamedTensors& tensors, const std::string& name, const Shape& shape) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) fail_input("tensor {} is missing; the model's adapter needs it", name);
  if (found->second.shape() != shape) {
    fail_input("tensor {} has shape {}, but the model's adapter needs {}; check r and target_modules", name,
               to_string(found->second.shape()), to_string(shape));
  }
  return to_floats(found->second.view());
}

void reject_unknown(const NamedTensors& tensors, std::size_t used, std::string_view what) {
  if (tensors.size() == used) return;
  fail_input("the {} holds {} tensors, but the model's adapter has {}; check target_modules", what, tensors.size(),
             used);
}

void cut_shards(const Slot& slot, const std::vector<float>& values, const ProcessGroup& group, bool replicated,
                std::vector<std::vector<float>>& shards) {
  for (const ShardPiece& piece : element_pieces(slot, shards)) {
    for (std::size_t rank = 0; rank < shards.size(); ++rank) {
      if (!replicated && group.first_rank() + rank != piece.shard) continue;
      std::copy_n(values.begin() + piece.in_parameter, piece.size, shards[rank].begin() + piece.in_shard);
    }
  }
}

void initialize_adapter(ShardedWeights& weights, std::uint64_t seed) {
  for_each_adapter_slot(weights, [seed](ShardedUnit& unit, std::size_t flat, const Slot& slot) {
    const Parameter& parameter = slot.parameter;
    if (!parameter.name.ends_with("lora_A.weight")) return;
    const float bound = 1.0F / std::sqrt(static_cast<float>(parameter.shape[1]));
    const auto values = uniform_values(seed, parameter.name, element_count(parameter.shape), bound);
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
