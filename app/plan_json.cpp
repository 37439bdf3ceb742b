#include "app/plan_json.h"

#include <algorithm>

#include <nlohmann/json.hpp>

namespace qshard {
namespace {

/// Elements of the trainable flats of one rank.
std::int64_t trainable_elements(const ShardLayout& layout) {
  std::int64_t elements = 0;
  for (const Unit& unit : layout.units) {
    for (const Flat& flat : unit.flats) {
      if (flat.trainable) elements += flat.shard_bytes / static_cast<std::int64_t>(size_of(flat.dtype));
    }
  }
  return elements;
}

std::int64_t largest_gathered(const ShardLayout& layout) {
  if (layout.world_size == 1 || layout.sharding == ShardingStrategy::no_shard) return 0;  // nothing is gathered
  std::int64_t largest = 0;
  for (const Unit& unit : layout.units) largest = std::max(largest, gathered_bytes(layout, unit));
  return largest;
}

}  // namespace

std::string plan_json(const ShardLayout& layout, const std::string& name) {
  const ResidentBytes held = resident_bytes(layout);
  const nlohmann::ordered_json bytes = {{"codes", held.codes},
                                        {"statistics", held.statistics},
                                        {"full_precision", held.dense},
                                        {"lora", held.lora},
                                        {"gradients", 4 * trainable_elements(layout)},
                                        {"optimizer", 2 * held.lora},
                                        {"gather_buffer", largest_gathered(layout)}};
  nlohmann::ordered_json ranks = nlohmann::ordered_json::array();
  for (int rank = 0; rank < layout.world_size; ++rank) ranks.push_back({{"rank", rank}, {"bytes", bytes}});
  const nlohmann::ordered_json document = {{"name", name},
                                           {"world_size", layout.world_size},
                                           {"strategy", to_string(layout.sharding)},
                                           {"ranks", std::move(ranks)},
                                           {"notes", layout.notes}};
  return document.dump(1) + "\n";
}

}  // namespace qshard
