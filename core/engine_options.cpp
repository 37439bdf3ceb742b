#include "core/engine_options.h"

#include <array>
#include <utility>

#include "core/error.h"

namespace qshard {
namespace {

constexpr std::array<std::pair<ShardingStrategy, std::string_view>, 3> kStrategies{
    {{ShardingStrategy::full_shard, "FULL_SHARD"},
     {ShardingStrategy::shard_grad_op, "SHARD_GRAD_OP"},
     {ShardingStrategy::no_shard, "NO_SHARD"}}};

}  // namespace

std::string_view to_string(ShardingStrategy strategy) {
  return kStrategies[static_cast<std::size_t>(strategy)].second;
}

ShardingStrategy parse_sharding_strategy(std::string_view name, std::string_view where) {
  for (const auto& [strategy, known] : kStrategies) {
    if (known == name) return strategy;
  }
  fail_input("{}: unknown sharding strategy \"{}\"; known: FULL_SHARD, SHARD_GRAD_OP, NO_SHARD", where, name);
}

}  // namespace qshard
