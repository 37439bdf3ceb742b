#pragma once

#include <optional>
#include <string>

#include "core/run/adamw_options.h"
#include "core/sharding/layout_table.h"
#include "core/sharding/shard_layout.h"
#include "core/sharding/step_advice.h"

namespace qshard {

/// The layout as the JSON that reports draw (reports/results/README.md, section 4): what each rank holds between steps,
/// the adapter's gradients (float) and AdamW's two moments (as `moments` says), and the largest unit that is
/// gathered at once. Activations depend on the batch and are not in it. Every rank holds the same. name: of the plan.
/// Where there is a step, "step" holds its predicted time, in seconds, and the time line of its first micro-batch;
/// where there are costs, "layouts" holds them.
std::string plan_json(const ShardLayout& layout, MomentFormat moments, const std::string& name,
                      const std::optional<StepWork>& step, const DeviceNumbers& numbers,
                      const std::vector<LayoutCost>& costs);

}  // namespace qshard
