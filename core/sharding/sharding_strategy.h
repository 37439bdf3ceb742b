#pragma once

#include <cstdint>
#include <string_view>

namespace qshard {

/// FSDP's sharding strategies. FULL_SHARD gathers a unit's parameters for its forward pass and again for its backward
/// pass; SHARD_GRAD_OP keeps them in between; NO_SHARD replicates everything and all-reduces the gradients.
enum class ShardingStrategy : std::uint8_t { full_shard, shard_grad_op, no_shard };

/// "FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD".
std::string_view to_string(ShardingStrategy strategy);

}  // namespace qshard
