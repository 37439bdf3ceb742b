#include "core/sharding/shard_layout.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "core/base/error.h"

namespace qshard {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Of slots and of shards, in bytes.
std::int64_t alignment_of(const Flat& flat) {
  return flat.trainable ? kTrainableAlignment * static_cast<std::int64_t>(size_of(flat.dtype)) : kSlotAlignment;
}

void append(const Parameter& parameter, Flat& flat) {
  const std::int64_t offset = round_up(flat.bytes, alignment_of(flat));
  flat.slots.push_back({parameter, offset});
  flat.bytes = offset + parameter.bytes();
}

// Shards are whole elements, and no shorter than the alignment, so that a gathered flat keeps it.
void cut(Flat& flat, std::int64_t shards) {
  flat.shard_bytes = round_up(round_up(flat.bytes, shards) / shards, alignment_of(flat));
}

class UnitBuilder {
 public:
  UnitBuilder(std::string name, std::size_t stage) : unit_{std::move(name), stage, {}} {}

  void add(const Parameter& parameter) {
    switch (parameter.kind) {
      case ParameterKind::trained:
        append(parameter, flat("lora", parameter.dtype, true));
        return;
      case ParameterKind::statistics:
        append(parameter, flat("statistics", DType::u8, false));
        return;
      case ParameterKind::dense:
      case ParameterKind::codes:
        append(parameter, flat("frozen", parameter.dtype, false));
        return;
    }
  }

  [[nodiscard]] const Unit& unit() const { return unit_; }

 private:
  Flat& flat(const std::string& name, DType dtype, bool trainable) {
    for (Flat& known : unit_.flats) {
      if (known.name == name) return known;
    }
    Flat made;
    made.name = name;
    made.dtype = dtype;
    made.trainable = trainable;
    unit_.flats.push_back(std::move(made));
    return unit_.flats.back();
  }

  Unit unit_;
};

// True where FSDP could not flatten the frozen parameters of a stage into one: codes in another dtype than the rest.
bool mixes_dtypes(const ModelStage& stage) {
  const Parameter* first = nullptr;
  for (const Parameter& parameter : stage.parameters) {
    if (parameter.kind != ParameterKind::dense && parameter.kind != ParameterKind::codes) continue;
    if (first != nullptr && first->dtype != parameter.dtype) return true;
    first = &parameter;
  }
  return false;
}

std::string module_of(const std::string& name) {
  return name.substr(0, name.rfind(".weight"));
}

std::vector<Unit> whole_stage(const ModelStage& stage, std::size_t index) {
  UnitBuilder builder(stage.name, index);
  for (const Parameter& parameter : stage.parameters) builder.add(parameter);
  return {builder.unit()};
}

// One unit for what is not 4-bit, then one for each 4-bit layer with its statistics.
std::vector<Unit> split_stage(const ModelStage& stage, std::size_t index) {
  UnitBuilder rest(stage.name, index);
  std::vector<UnitBuilder> layers;
  for (const Parameter& parameter : stage.parameters) {
    if (parameter.kind == ParameterKind::codes) layers.emplace_back(module_of(parameter.name), index);
    const bool of_layer = parameter.kind == ParameterKind::codes || parameter.kind == ParameterKind::statistics;
    (of_layer ? layers.back() : rest).add(parameter);
  }
  std::vector<Unit> units{rest.unit()};
  for (const UnitBuilder& layer : layers) units.push_back(layer.unit());
  return units;
}

std::string split_note(const ModelStage& stage, std::size_t split_layers, std::int64_t messages, DType storage,
                       DType dtype) {
  return fmt::format(
      "quant_storage {} differs from the model's dtype {}: parameters are flattened together only when they share one "
      "dtype, so each of the {} 4-bit layers is a unit of its own and {} takes {} messages to gather instead of 3. "
      "bnb_4bit_quant_storage: {} gathers a decoder layer at once, with the same bits.",
      torch_name(storage), torch_name(dtype), split_layers, stage.name, messages, torch_name(dtype));
}

int count_shards(int world_size, ShardingStrategy sharding, int group) {
  if (sharding == ShardingStrategy::no_shard) return 1;
  if (sharding != ShardingStrategy::hybrid_shard) return world_size;
  if (group >= 1 && world_size % group == 0) return group;
  fail_input(
      "HYBRID_SHARD deals {} ranks to groups of fsdp.shard_group_size, which is {}; give a divisor of the ranks, "
      "for example the number of GPUs of a host",
      world_size, group);
}

DType first_dtype(const ModelStage& stage, ParameterKind kind) {
  const auto found = std::find_if(stage.parameters.begin(), stage.parameters.end(),
                                  [kind](const Parameter& parameter) { return parameter.kind == kind; });
  return found->dtype;
}

}  // namespace

ShardLayout plan_shards(const std::vector<ModelStage>& stages, int world_size, ShardingStrategy sharding, int group) {
  const int shards = count_shards(world_size, sharding, group);
  ShardLayout layout{world_size, sharding, shards, {}, {}};
  std::size_t split_layers = 0;
  const ModelStage* split = nullptr;
  std::int64_t messages = 0;
  for (std::size_t index = 0; index < stages.size(); ++index) {
    const bool mixed = mixes_dtypes(stages[index]);
    std::vector<Unit> units = mixed ? split_stage(stages[index], index) : whole_stage(stages[index], index);
    if (mixed) {
      split_layers += units.size() - 1;
      split = &stages[index];
      messages = 0;
      for (const Unit& unit : units) messages += static_cast<std::int64_t>(unit.flats.size());
    }
    for (Unit& unit : units) {
      for (Flat& flat : unit.flats) cut(flat, shards);
      layout.units.push_back(std::move(unit));
    }
  }
  if (split != nullptr && shards > 1) {
    layout.notes.push_back(split_note(*split, split_layers, messages, first_dtype(*split, ParameterKind::codes),
                                      first_dtype(*split, ParameterKind::dense)));
  }
  return layout;
}

std::size_t first_of_group(const ShardLayout& layout, std::size_t rank) {
  return rank - rank % static_cast<std::size_t>(layout.shards);
}

std::vector<ShardPiece> cut_into_pieces(std::int64_t offset, std::int64_t size, std::int64_t shard_size) {
  std::vector<ShardPiece> pieces;
  const std::int64_t end = offset + size;
  for (std::int64_t begin = offset; begin < end;) {
    const std::int64_t shard = begin / shard_size;
    const std::int64_t stop = std::min(end, (shard + 1) * shard_size);
    pieces.push_back({static_cast<std::size_t>(shard), begin - shard * shard_size, begin - offset, stop - begin});
    begin = stop;
  }
  return pieces;
}

ResidentBytes resident_bytes(const ShardLayout& layout) {
  ResidentBytes total;
  for (const Unit& unit : layout.units) {
    for (const Flat& flat : unit.flats) {
      // A frozen flat's padding is counted with its largest part.
      std::int64_t dense = 0;
      std::int64_t all = 0;
      for (const Slot& slot : flat.slots) {
        all += slot.parameter.bytes();
        if (slot.parameter.kind == ParameterKind::dense) dense += slot.parameter.bytes();
      }
      const std::int64_t dense_share = all == 0 ? 0 : flat.shard_bytes * dense / all;
      if (flat.trainable) {
        total.lora += flat.shard_bytes;
      } else if (flat.slots.front().parameter.kind == ParameterKind::statistics) {
        total.statistics += flat.shard_bytes;
      } else {
        total.dense += dense_share;
        total.codes += flat.shard_bytes - dense_share;
      }
    }
  }
  return total;
}

std::int64_t gathered_bytes(const ShardLayout& layout, const Unit& unit) {
  std::int64_t bytes = 0;
  for (const Flat& flat : unit.flats) bytes += flat.shard_bytes * layout.shards;
  return bytes;
}

std::int64_t gather_messages(const ShardLayout& layout) {
  if (layout.shards == 1) return 0;
  std::int64_t messages = 0;
  for (const Unit& unit : layout.units) messages += static_cast<std::int64_t>(unit.flats.size());
  return messages;
}

}  // namespace qshard
