#pragma once

#include <string>

#include "core/sharding/shard_layout.h"

namespace qshard {

/// The layout as the JSON that reports draw (reports/results/README.md, section 4): what each rank holds between steps,
/// the adapter's gradients (float) and AdamW's two moments (in the adapter's dtype), and the largest unit that is
/// gathered at once. Activations depend on the batch and are not in it. Every rank holds the same. name: of the plan.
std::string plan_json(const ShardLayout& layout, const std::string& name);

}  // namespace qshard
