#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/model_parameters.h"
#include "core/sharding/sharding_strategy.h"
#include "core/sharding/step_time.h"

namespace qshard {

/// What becomes a unit, before FSDP's rule about dtypes cuts it further (shard_layout.h).
enum class WrapPolicy : std::uint8_t {
  layer,           // a whole decoder layer
  linear,          // each 4-bit layer with its scales, and the rest of the decoder layer
  adapters_apart,  // each adapter matrix, as PEFT's fsdp_auto_wrap_policy does, and the rest of the decoder layer
};
/// "layer", "linear", "adapters apart".
std::string_view to_string(WrapPolicy wrap);

/// One way to lay a 4-bit model over ranks.
struct LayoutVariant {
  DType storage = DType::u8;
  WrapPolicy wrap = WrapPolicy::layer;
  bool scales_sharded = true;  // false: every rank keeps the statistics of all 4-bit layers, as FSDP does
  ShardingStrategy sharding = ShardingStrategy::full_shard;
};
/// Every combination, the dtype of the model as storage first.
std::vector<LayoutVariant> list_layout_variants(DType model_dtype);

/// Stages as a policy wraps them; stage[i] is the index of the stage that stages[i] comes from.
struct WrappedStages {
  std::vector<ModelStage> stages;
  std::vector<std::size_t> stage;
};
WrappedStages wrap_stages(const std::vector<ModelStage>& stages, WrapPolicy wrap);

/// The layout of a variant. Statistics that are not sharded are in no flat.
ShardLayout plan_variant(const std::vector<ModelStage>& stages, int world_size, const LayoutVariant& variant);

/// Of the 4-bit layers' statistics, whole: what each rank holds where they are not sharded.
std::int64_t statistics_bytes(const std::vector<ModelStage>& stages);

/// What a variant costs. Bytes are of one rank.
struct LayoutCost {
  LayoutVariant variant;
  std::int64_t held = 0;            // between steps: parameters alone, without gradients and optimizer
  std::int64_t replicated = 0;      // of them, statistics that every rank holds whole
  std::int64_t gathered = 0;        // of all units, in one pass of gathers; 0 where nothing is gathered
  std::int64_t messages = 0;        // in one pass of gathers
  std::int64_t passes = 0;          // of gathers in a micro-batch
  std::int64_t largest = 0;         // of the units that are gathered
  double gather_seconds = 0;        // of the link's time in a step
  double layer_gather_seconds = 0;  // of one decoder layer; 0 where nothing is gathered
  double step_seconds = 0;
  std::size_t same_as =
      0;  // the first variant that moves the same bytes in the same messages: its own place, or before
};

/// All variants of list_layout_variants(). stages_of: the model's stages with the 4-bit codes held in a dtype. work:
/// the step that they are timed for; its stages and strategy are replaced.
std::vector<LayoutCost> list_layout_costs(const std::function<std::vector<ModelStage>(DType)>& stages_of,
                                          DType model_dtype, const StepWork& work, const DeviceNumbers& numbers);

/// A table for people: variants that differ, what they are the same as, and what the dtype rule and replicated
/// scales cost.
std::string describe(const std::vector<LayoutCost>& costs);

}  // namespace qshard
