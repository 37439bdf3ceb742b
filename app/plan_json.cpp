#include "app/plan_json.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "core/sharding/step_memory.h"
#include "core/training/moment_arrays.h"

namespace qshard {
namespace {

// body(elements of one rank's shard, dtype) for each trainable flat.
template <typename Body>
std::int64_t sum_over_trainable(const ShardLayout& layout, const Body& body) {
  std::int64_t sum = 0;
  for (const Unit& unit : layout.units) {
    for (const Flat& flat : unit.flats) {
      if (flat.trainable) sum += body(flat.shard_bytes / static_cast<std::int64_t>(size_of(flat.dtype)), flat.dtype);
    }
  }
  return sum;
}

std::int64_t gradient_bytes(const ShardLayout& layout) {
  return sum_over_trainable(layout, [](std::int64_t elements, DType) { return 4 * elements; });
}

std::int64_t optimizer_bytes(const ShardLayout& layout, MomentFormat moments) {
  return sum_over_trainable(layout, [moments](std::int64_t elements, DType lora_dtype) {
    std::int64_t bytes = 0;
    for (const MomentArray& array : moment_arrays(moments, lora_dtype)) bytes += moment_bytes(array, elements);
    return bytes;
  });
}

std::int64_t largest_gathered(const ShardLayout& layout) {
  if (layout.shards == 1) return 0;  // nothing is gathered
  std::int64_t largest = 0;
  for (const Unit& unit : layout.units) largest = std::max(largest, gathered_bytes(layout, unit));
  return largest;
}

nlohmann::ordered_json parts_json(const std::vector<TimePart>& parts) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const TimePart& part : parts) json[part.name] = part.seconds;
  return json;
}

nlohmann::ordered_json step_json(const StepWork& work, const DeviceNumbers& numbers) {
  const StepTime step = predict_step(work, numbers);
  nlohmann::ordered_json knobs = nlohmann::ordered_json::array();
  for (const StepKnob& knob : try_knobs(work, numbers)) {
    knobs.push_back({{"change", knob.change}, {"seconds", knob.seconds}, {"gain", knob.gain}});
  }
  nlohmann::ordered_json timeline = nlohmann::ordered_json::array();
  for (const Segment& segment : step.timeline.segments) {
    timeline.push_back({{"lane", to_string(segment.lane)},
                        {"what", segment.what},
                        {"layer", segment.layer},
                        {"begin", segment.begin},
                        {"end", segment.end}});
  }
  nlohmann::ordered_json memory = nlohmann::ordered_json::array();
  for (const MemoryMoment& moment : memory_over_step(work, step.timeline)) {
    memory.push_back({{"at", moment.at}, {"gathered_bytes", moment.gathered}, {"input_bytes", moment.inputs}});
  }
  return {{"gpu", numbers.gpu},
          {"link", numbers.link},
          {"product_flops_per_second", numbers.product_rate},
          {"memory_bytes_per_second", numbers.memory_rate},
          {"peer_bytes_per_second", numbers.peer_rate},
          {"network_bytes_per_second", numbers.network_rate},
          {"host_bytes_per_second", numbers.host_rate},
          {"seconds", step.seconds},
          {"tokens_per_second", step.tokens_per_second},
          {"gathering_seconds", step.timeline.gathering},
          {"hidden_share", step.hidden_share()},
          {"pipeline_seconds", pipeline_seconds(work, numbers)},
          {"parts", parts_json(step.parts)},
          {"kinds", parts_json(step.kinds)},
          {"knobs", std::move(knobs)},
          {"timeline", std::move(timeline)},
          {"memory", std::move(memory)}};
}

nlohmann::ordered_json layouts_json(const std::vector<LayoutCost>& costs) {
  nlohmann::ordered_json layouts = nlohmann::ordered_json::array();
  for (const LayoutCost& cost : costs) {
    layouts.push_back({{"storage", torch_name(cost.variant.storage)},
                       {"unit", to_string(cost.variant.wrap)},
                       {"scales", cost.variant.scales_sharded ? "sharded" : "every rank"},
                       {"strategy", to_string(cost.variant.sharding)},
                       {"held_bytes", cost.held},
                       {"replicated_bytes", cost.replicated},
                       {"gathered_bytes", cost.gathered},
                       {"messages", cost.messages},
                       {"passes", cost.passes},
                       {"largest_unit_bytes", cost.largest},
                       {"gather_seconds", cost.gather_seconds},
                       {"layer_gather_seconds", cost.layer_gather_seconds},
                       {"step_seconds", cost.step_seconds},
                       {"same_as", cost.same_as}});
  }
  return layouts;
}

}  // namespace

std::string plan_json(const ShardLayout& layout, MomentFormat moments, const std::string& name,
                      const std::optional<StepWork>& step, const DeviceNumbers& numbers,
                      const std::vector<LayoutCost>& costs) {
  const ResidentBytes held = resident_bytes(layout);
  const nlohmann::ordered_json bytes = {{"codes", held.codes},
                                        {"statistics", held.statistics},
                                        {"full_precision", held.dense},
                                        {"lora", held.lora},
                                        {"gradients", gradient_bytes(layout)},
                                        {"optimizer", optimizer_bytes(layout, moments)},
                                        {"gather_buffer", largest_gathered(layout)}};
  nlohmann::ordered_json ranks = nlohmann::ordered_json::array();
  for (int rank = 0; rank < layout.world_size; ++rank) ranks.push_back({{"rank", rank}, {"bytes", bytes}});
  nlohmann::ordered_json document = {{"name", name},
                                     {"world_size", layout.world_size},
                                     {"strategy", to_string(layout.sharding)},
                                     {"ranks", std::move(ranks)},
                                     {"notes", layout.notes}};
  if (step) document["step"] = step_json(*step, numbers);
  if (!costs.empty()) document["layouts"] = layouts_json(costs);
  return document.dump(1) + "\n";
}

}  // namespace qshard
