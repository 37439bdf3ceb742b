#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "core/sharding/shard_layout.h"

namespace qshard {
namespace {

// One line of the table: units that are the same but for the number of their layer.
struct Row {
  std::string pattern;
  int units = 0;
  std::size_t messages = 0;
  std::int64_t gathered = 0;
  std::int64_t shard = 0;
  std::int64_t padding = 0;
};

// "model.layers.12.mlp.up_proj" -> "model.layers.*.mlp.up_proj".
std::string without_layer(const std::string& name) {
  std::string pattern;
  for (const char c : name) {
    const bool digit = std::isdigit(static_cast<unsigned char>(c)) != 0;
    if (!digit) pattern += c;
    if (digit && (pattern.empty() || pattern.back() == '.')) pattern += '*';
  }
  return pattern;
}

std::vector<Row> make_rows(const ShardLayout& layout) {
  std::vector<Row> rows;
  for (const Unit& unit : layout.units) {
    Row row{without_layer(unit.name), 1, unit.flats.size(), gathered_bytes(layout, unit), 0, 0};
    std::int64_t used = 0;
    for (const Flat& flat : unit.flats) {
      row.shard += flat.shard_bytes;
      for (const Slot& slot : flat.slots) used += slot.parameter.bytes();
    }
    row.padding = row.gathered - used;
    const auto same = std::find_if(rows.begin(), rows.end(), [&row](const Row& other) {
      return other.pattern == row.pattern && other.gathered == row.gathered && other.messages == row.messages;
    });
    if (same == rows.end()) {
      rows.push_back(row);
    } else {
      ++same->units;
    }
  }
  return rows;
}

}  // namespace

std::string describe(const ShardLayout& layout) {
  std::string text = fmt::format("{} over {} rank{}", to_string(layout.sharding), layout.world_size,
                                 layout.world_size == 1 ? "" : "s");
  if (layout.sharding == ShardingStrategy::hybrid_shard) {
    text += fmt::format(", {} groups of {}", layout.world_size / layout.shards, layout.shards);
  }
  text += "\n";
  text += fmt::format("  {:<36} {:>5} {:>8} {:>15} {:>15} {:>9}\n", "unit", "units", "messages", "gathered bytes",
                      "bytes a rank", "padding");
  for (const Row& row : make_rows(layout)) {
    text += fmt::format("  {:<36} {:>5} {:>8} {:>15} {:>15} {:>9}\n", row.pattern, row.units, row.messages,
                        row.gathered, row.shard, row.padding);
  }
  const ResidentBytes held = resident_bytes(layout);
  text += fmt::format(
      "  each rank holds {:.1f} MiB: codes {:.1f}, statistics {:.1f}, dense {:.1f}, LoRA {:.1f}; all-gather messages a "
      "pass: {}\n",
      static_cast<double>(held.codes + held.statistics + held.dense + held.lora) / (1 << 20),
      static_cast<double>(held.codes) / (1 << 20), static_cast<double>(held.statistics) / (1 << 20),
      static_cast<double>(held.dense) / (1 << 20), static_cast<double>(held.lora) / (1 << 20), gather_messages(layout));
  for (const std::string& note : layout.notes) text += fmt::format("  note: {}\n", note);
  return text;
}

}  // namespace qshard
