#include "core/sharding/sharding_strategy.h"

#include <array>

namespace qshard {

std::string_view to_string(ShardingStrategy strategy) {
  static constexpr std::array<std::string_view, 4> kNames{"FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD"};
  return kNames[static_cast<std::size_t>(strategy)];
}

}  // namespace qshard
