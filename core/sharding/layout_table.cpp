#include "core/sharding/layout_table.h"

#include <algorithm>
#include <array>
#include <utility>

namespace qshard {
namespace {

bool is_of_4bit_layer(const Parameter& parameter) {
  return parameter.kind == ParameterKind::codes || parameter.kind == ParameterKind::statistics;
}

/// Where a parameter begins a stage of its own, or goes on with the one that was begun for its layer.
enum class Place : std::uint8_t { rest, begins, continues };

Place place_of(const Parameter& parameter, WrapPolicy wrap) {
  if (wrap == WrapPolicy::linear && is_of_4bit_layer(parameter)) {
    return parameter.kind == ParameterKind::codes ? Place::begins : Place::continues;
  }
  const bool is_apart = wrap == WrapPolicy::adapters_apart && parameter.kind == ParameterKind::trained;
  return is_apart ? Place::begins : Place::rest;
}

std::vector<ModelStage> wrap_stage(const ModelStage& stage, WrapPolicy wrap) {
  std::vector<ModelStage> wrapped{{stage.name, {}}};
  for (const Parameter& parameter : stage.parameters) {
    const Place place = place_of(parameter, wrap);
    if (place == Place::begins) wrapped.push_back({parameter.name, {}});
    (place == Place::rest ? wrapped.front() : wrapped.back()).parameters.push_back(parameter);
  }
  return wrapped;
}

bool is_statistics(const Parameter& parameter) {
  return parameter.kind == ParameterKind::statistics;
}

std::int64_t gather_passes(ShardingStrategy sharding) {
  switch (sharding) {
    case ShardingStrategy::full_shard:
      return 2;
    case ShardingStrategy::shard_grad_op:
      return 1;
    default:
      return 0;
  }
}

std::int64_t held_bytes(const ShardLayout& layout) {
  const ResidentBytes held = resident_bytes(layout);
  return held.codes + held.statistics + held.dense + held.lora;
}

double gather_seconds_of_a_layer(const Timeline& timeline) {
  const auto found = std::ranges::find_if(
      timeline.segments, [](const Segment& segment) { return segment.what == "gather" && segment.layer >= 0; });
  return found == timeline.segments.end() ? 0 : found->end - found->begin;
}

LayoutCost cost_of(const ShardLayout& layout, std::int64_t replicated, const LayoutVariant& variant, StepWork work,
                   const DeviceNumbers& numbers) {
  LayoutCost cost;
  cost.variant = variant;
  cost.replicated = replicated;
  cost.held = held_bytes(layout) + cost.replicated;
  cost.messages = gather_messages(layout);
  cost.passes = cost.messages == 0 ? 0 : gather_passes(variant.sharding);
  if (cost.passes > 0) {
    for (const Unit& unit : layout.units) {
      const std::int64_t bytes = gathered_bytes(layout, unit);
      cost.gathered += bytes;
      cost.largest = std::max(cost.largest, bytes);
    }
  }
  work.stages = list_stage_work(layout);
  work.sharding = variant.sharding;
  const StepTime step = predict_step(work, numbers);
  cost.gather_seconds = step.timeline.gathering;
  cost.layer_gather_seconds = gather_seconds_of_a_layer(step.timeline);
  cost.step_seconds = step.seconds;
  return cost;
}

/// What two variants have in common that are one: what stays on a rank, and every message in its order.
struct Movement {
  std::int64_t held = 0;
  std::int64_t replicated = 0;
  std::int64_t passes = 0;
  std::vector<std::int64_t> messages;

  bool operator==(const Movement&) const = default;
};

Movement movement_of(const ShardLayout& layout, const LayoutCost& cost) {
  Movement movement{cost.held, cost.replicated, cost.passes, {}};
  if (cost.passes == 0) return movement;
  for (const Unit& unit : layout.units) {
    for (const Flat& flat : unit.flats) movement.messages.push_back(flat.shard_bytes);
  }
  return movement;
}

}  // namespace

std::string_view to_string(WrapPolicy wrap) {
  static constexpr std::array<std::string_view, 3> kNames{"layer", "linear", "adapters apart"};
  return kNames[static_cast<std::size_t>(wrap)];
}

std::vector<LayoutVariant> list_layout_variants(DType model_dtype) {
  std::vector<DType> storages{model_dtype};
  for (const DType storage : {DType::bf16, DType::f16, DType::f32, DType::u8}) {
    if (storage != model_dtype) storages.push_back(storage);
  }
  std::vector<LayoutVariant> variants;
  for (const auto sharding :
       {ShardingStrategy::full_shard, ShardingStrategy::shard_grad_op, ShardingStrategy::no_shard}) {
    for (const bool scales_sharded : {true, false}) {
      for (const auto wrap : {WrapPolicy::layer, WrapPolicy::linear, WrapPolicy::adapters_apart}) {
        for (const DType storage : storages) variants.push_back({storage, wrap, scales_sharded, sharding});
      }
    }
  }
  return variants;
}

WrappedStages wrap_stages(const std::vector<ModelStage>& stages, WrapPolicy wrap) {
  WrappedStages wrapped;
  for (std::size_t index = 0; index < stages.size(); ++index) {
    for (ModelStage& stage : wrap_stage(stages[index], wrap)) {
      if (stage.parameters.empty()) continue;
      wrapped.stages.push_back(std::move(stage));
      wrapped.stage.push_back(index);
    }
  }
  return wrapped;
}

std::int64_t statistics_bytes(const std::vector<ModelStage>& stages) {
  std::int64_t bytes = 0;
  for (const ModelStage& stage : stages) {
    for (const Parameter& parameter : stage.parameters) bytes += is_statistics(parameter) ? parameter.bytes() : 0;
  }
  return bytes;
}

ShardLayout plan_variant(const std::vector<ModelStage>& stages, int world_size, const LayoutVariant& variant) {
  WrappedStages wrapped = wrap_stages(stages, variant.wrap);
  if (!variant.scales_sharded) {
    for (ModelStage& stage : wrapped.stages) std::erase_if(stage.parameters, is_statistics);
  }
  ShardLayout layout = plan_shards(wrapped.stages, world_size, variant.sharding);
  for (Unit& unit : layout.units) unit.stage = wrapped.stage[unit.stage];
  return layout;
}

std::vector<LayoutCost> list_layout_costs(const std::function<std::vector<ModelStage>(DType)>& stages_of,
                                          DType model_dtype, const StepWork& work, const DeviceNumbers& numbers) {
  std::vector<LayoutCost> costs;
  std::vector<Movement> movements;
  for (const LayoutVariant& variant : list_layout_variants(model_dtype)) {
    const std::vector<ModelStage> stages = stages_of(variant.storage);
    const ShardLayout layout = plan_variant(stages, static_cast<int>(work.ranks), variant);
    const std::int64_t replicated = variant.scales_sharded ? 0 : statistics_bytes(stages);
    LayoutCost cost = cost_of(layout, replicated, variant, work, numbers);
    movements.push_back(movement_of(layout, cost));
    const auto same = std::ranges::find(movements, movements.back());
    cost.same_as = static_cast<std::size_t>(same - movements.begin());
    costs.push_back(cost);
  }
  return costs;
}

}  // namespace qshard
