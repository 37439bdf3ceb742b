#pragma once

#include <cstdint>
#include <string_view>

namespace qshard {

/// FSDP's sharding strategies. FULL_SHARD gathers a unit's parameters for its forward pass and again for its backward
/// pass; SHARD_GRAD_OP keeps them in between; NO_SHARD replicates everything and all-reduces the gradients.
/// HYBRID_SHARD is FULL_SHARD within groups of ranks, each of which holds all of the model: gathers stay within a
/// group, gradients are added over all ranks.
enum class ShardingStrategy : std::uint8_t { full_shard, shard_grad_op, no_shard, hybrid_shard };

/// "FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD".
std::string_view to_string(ShardingStrategy strategy);

}  // namespace qshard
