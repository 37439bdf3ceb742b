#include <algorithm>

#include <fmt/format.h>

#include "core/sharding/layout_table.h"

namespace qshard {
namespace {

constexpr double kGib = 1 << 30;

double gib(std::int64_t bytes) {
  return static_cast<double>(bytes) / kGib;
}

std::string name_of(const LayoutVariant& variant) {
  return fmt::format("{:<9} {:<15} {:<11} {:<14}", torch_name(variant.storage), to_string(variant.wrap),
                     variant.scales_sharded ? "sharded" : "every rank", to_string(variant.sharding));
}

std::string row_of(const LayoutCost& cost) {
  return fmt::format("  {}{:>9.2f} {:>10.2f} {:>9} {:>7} {:>9.3f} {:>8.3f}\n", name_of(cost.variant), gib(cost.held),
                     gib(cost.gathered), cost.messages, cost.passes, cost.gather_seconds, cost.step_seconds);
}

/// "float32, uint8 by layer; bfloat16, float16, float32, uint8 by linear, NO_SHARD": the strategy where it is another
/// one than that of the row itself.
std::string same_rows(const std::vector<LayoutCost>& costs, std::size_t place) {
  const auto unit_of = [&](const LayoutVariant& variant) {
    const std::string unit(to_string(variant.wrap));
    const bool differs = variant.sharding != costs[place].variant.sharding;
    return differs ? fmt::format("{}, {}", unit, to_string(variant.sharding)) : unit;
  };
  std::string names;
  std::string last;
  for (std::size_t i = place + 1; i < costs.size(); ++i) {
    if (costs[i].same_as != place) continue;
    const std::string unit = unit_of(costs[i].variant);
    if (!last.empty()) names += last == unit ? ", " : fmt::format(" by {}; ", last);
    names += torch_name(costs[i].variant.storage);
    last = unit;
  }
  return last.empty() ? "" : fmt::format("    the same: {} by {}\n", names, last);
}

/// The first FULL_SHARD row that moves something else than the first of all, for the dtype alone or for the scales.
const LayoutCost* find_other(const std::vector<LayoutCost>& costs, bool scales_sharded) {
  const LayoutVariant& first = costs.front().variant;
  for (const LayoutCost& cost : costs) {
    const LayoutVariant& variant = cost.variant;
    const bool other_dtype = variant.storage != first.storage;
    if (variant.sharding == first.sharding && variant.wrap == first.wrap && variant.scales_sharded == scales_sharded &&
        other_dtype == scales_sharded) {
      return &cost;
    }
  }
  return nullptr;
}

}  // namespace

std::string describe(const std::vector<LayoutCost>& costs) {
  std::string text =
      fmt::format("Layouts, {} of which {} differ in what they hold or move:\n", costs.size(),
                  std::ranges::count_if(costs, [&](const LayoutCost& cost) { return &cost == &costs[cost.same_as]; }));
  text += fmt::format("  {:<9} {:<15} {:<11} {:<14}{:>9} {:>10} {:>9} {:>7} {:>9} {:>8}\n", "storage", "a unit",
                      "scales", "strategy", "GiB held", "GiB a pass", "messages", "passes", "gathers s", "step s");
  for (std::size_t i = 0; i < costs.size(); ++i) {
    if (costs[i].same_as == i) text += row_of(costs[i]) + same_rows(costs, i);
  }
  const LayoutCost& first = costs.front();
  if (const LayoutCost* other = find_other(costs, true); other != nullptr && first.passes > 0) {
    text += fmt::format("  codes held in {} instead of {}: {} messages a pass instead of {}, a step {:+.1f} %\n",
                        torch_name(other->variant.storage), torch_name(first.variant.storage), other->messages,
                        first.messages, 100 * (other->step_seconds / first.step_seconds - 1));
  }
  if (const LayoutCost* other = find_other(costs, false); other != nullptr) {
    text += fmt::format("  scales on every rank: {:+.2f} GiB a rank, a step {:+.1f} %\n", gib(other->held - first.held),
                        100 * (other->step_seconds / first.step_seconds - 1));
  }
  return text;
}

}  // namespace qshard
