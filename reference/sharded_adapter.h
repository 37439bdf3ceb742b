#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/run/engine_options.h"
#include "core/sharding/shard_layout.h"
#include "core/training/training_engine.h"
#include "reference/sharded_weights.h"

namespace qshard::reference {

/// PEFT's initialization: A as lora_a_values() has it, B and its bias zero, DoRA's magnitudes the lengths of the frozen
/// weight's rows. What is trained whole stays as the base model has it. Collective.
void initialize_adapter(ShardedWeights& weights, const EngineOptions& options);

/// The adapter whole, in its dtype, by PEFT name, where rank 0 is (elsewhere nothing); and loaded from such tensors of
/// any floating dtype, given where rank 0 is. Both are collective.
NamedTensors read_adapter(const ShardedWeights& weights, const ProcessGroup& group);
void write_adapter(ShardedWeights& weights, const ProcessGroup& group, const NamedTensors& tensors);

}  // namespace qshard::reference
