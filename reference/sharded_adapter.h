#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/sharding/shard_layout.h"
#include "core/training/training_engine.h"
#include "reference/sharded_weights.h"

namespace qshard::reference {

/// Float shards (one element for each of the flat's) to the slot's whole tensor (f32), and the other way.
Tensor join_shards(const Slot& slot, const std::vector<std::vector<float>>& shards);
void cut_shards(const Slot& slot, const std::vector<float>& values, bool replicated,
                std::vector<std::vector<float>>& shards);

/// PEFT's initialization: A uniform in +-1/sqrt(in), B zero. Each tensor's values depend on the seed and its name
/// alone.
void initialize_adapter(ShardedWeights& weights, std::uint64_t seed);

/// The adapter whole, in its dtype, by PEFT name; and loaded from such tensors of any floating dtype.
NamedTensors read_adapter(const ShardedWeights& weights);
void write_adapter(ShardedWeights& weights, const NamedTensors& tensors);

}  // namespace qshard::reference
