// One rank of the table of layouts: every way to lay a 4-bit model's decoder layers over ranks, gathered, verified to
// the bit and timed, over one transport. Prints a JSON line a layout on rank 0; bench/shard_layout/run starts the
// ranks.
#include <algorithm>
#include <cstring>
#include <numeric>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "bench/model_shape.h"
#include "bench/shard_layout/gather_times.h"
#include "bench/shard_layout/gathered_layout.h"
#include "bench/sharded_step/frozen_products.h"
#include "bench/sharded_step/measured_step.h"
#include "core/base/error.h"
#include "core/launch/rank_info.h"
#include "core/launch/rank_link.h"
#include "core/model/model_parameters.h"
#include "core/sharding/layout_table.h"
#include "optimized/sharded/device_choice.h"

namespace qshard::bench {
namespace {

struct Options {
  std::string model = "llama-2-70b";
  std::int64_t layers = 2;
  std::int64_t length = 2048;
  int r = 64;
  std::string transport = "peer";
  bool offload = false;
  int repetitions = 5;
  int steps = 0;
  int first = 0;
};

std::vector<ModelStage> stages_of(const Options& options, DType storage) {
  QuantizationOptions quantization;
  quantization.load_in_4bit = true;
  quantization.double_quant = true;
  quantization.quant_storage = storage;
  LoraOptions lora;
  lora.r = options.r;
  const PrequantizedInfo none = [](const std::string&, const Shape&) { return std::nullopt; };
  return list_model_stages(model_shape(options.model, options.layers), quantization, lora, DType::bf16, none);
}

/// Without embedding and head, which every layout holds and moves alike.
std::vector<ModelStage> decoder_layers(std::vector<ModelStage> stages) {
  stages.erase(stages.begin());
  stages.pop_back();
  return stages;
}

std::vector<LayoutCost> plan_costs(const Options& options, int ranks, DType storage_of_model) {
  StepWork work;
  work.model = model_shape(options.model, options.layers);
  work.quantization.load_in_4bit = true;
  work.quantization.double_quant = true;
  work.lora.r = options.r;
  work.lora.dropout = 0.1;
  work.ranks = ranks;
  work.batch = {options.length, 1, options.length};
  return list_layout_costs([&](DType storage) { return stages_of(options, storage); }, storage_of_model, work,
                           device_numbers("h200", ""));
}

/// What the engine can train with: units of whole layers, or what the dtype rule makes of them, and scales sharded.
bool engine_has(const LayoutVariant& variant) {
  return variant.wrap == WrapPolicy::layer && variant.scales_sharded;
}

std::int64_t sum_over_ranks(std::int64_t value, RankLink& link) {
  std::int64_t sum = 0;
  for (const std::vector<std::byte>& bytes : link.all_gather(std::as_bytes(std::span(&value, 1)))) {
    std::int64_t of_rank = 0;
    std::memcpy(&of_rank, bytes.data(), sizeof of_rank);
    sum += of_rank;
  }
  return sum;
}

nlohmann::json describe(const LayoutVariant& variant) {
  return {{"storage", torch_name(variant.storage)},
          {"unit", to_string(variant.wrap)},
          {"scales", variant.scales_sharded ? "sharded" : "every rank"},
          {"strategy", to_string(variant.sharding)}};
}

std::int64_t held_bytes(const ShardLayout& layout, std::int64_t replicated) {
  const ResidentBytes held = resident_bytes(layout);
  return held.codes + held.statistics + held.dense + held.lora + replicated;
}

std::int64_t gathered_in_a_pass(const ShardLayout& layout) {
  if (layout.shards == 1) return 0;
  return std::accumulate(layout.units.begin(), layout.units.end(), std::int64_t{0},
                         [&](std::int64_t sum, const Unit& unit) { return sum + gathered_bytes(layout, unit); });
}

/// A layout as it was measured; one that differs from an earlier one in name alone is verified and not timed.
nlohmann::json measure_layout(const Options& options, const LayoutCost& cost, bool timed, const Way& way,
                              const FrozenProducts& products, RankLink& link) {
  const LayoutVariant& variant = cost.variant;
  const std::vector<ModelStage> all = stages_of(options, variant.storage);
  const std::vector<ModelStage> stages = decoder_layers(all);
  const ShardLayout layout = plan_variant(stages, link.world_size(), variant);
  const std::int64_t replicated = variant.scales_sharded ? 0 : statistics_bytes(stages);
  const std::int64_t before = used_bytes();
  GatheredLayout gathered(layout, replicated, way, link);
  nlohmann::json line = describe(variant);
  line["held_bytes"] = held_bytes(layout, replicated);
  line["gathered_bytes"] = gathered_in_a_pass(layout);
  line["received_bytes"] = gathered_in_a_pass(layout) * (link.world_size() - 1) / link.world_size();
  line["messages"] = gather_messages(layout);
  line["peak_bytes"] = used_bytes() - before;
  line["host_bytes"] = gathered.host_bytes();
  const bool readable = !way.offload || layout.shards > 1;  // else the shards are in host memory and never gathered
  if (readable) line["different_bits"] = sum_over_ranks(gathered.count_different_bits(), link);
  if (timed && layout.shards > 1) {
    const GatherTimes times = time_gathers(gathered, products, options.layers, options.repetitions, link);
    line["gather_s"] = times.alone;
    line["gather_beside_s"] = times.beside;
    line["products_s"] = times.products_alone;
    line["products_beside_s"] = times.products_beside;
  }
  gathered.close();
  return line;
}

nlohmann::json measure_step_of(const Options& options, const LayoutVariant& variant, RankLink& link) {
  StepOptions step;
  step.model = options.model;
  step.layers = options.layers;
  step.length = options.length;
  step.r = options.r;
  step.sharding = to_string(variant.sharding);
  step.storage = variant.storage;
  step.transport = options.transport;
  step.offload = options.offload;
  step.steps = options.steps;
  step.hash = true;
  return measure_step(step, link);
}

void measure(const Options& options, RankLink& link) {
  optimized::choose_device(link);
  std::vector<LayoutCost> costs = plan_costs(options, link.world_size(), DType::bf16);
  if (options.first > 0) costs.resize(std::min(costs.size(), static_cast<std::size_t>(options.first)));
  std::optional<optimized::NcclCommunicator> communicator;
  if (options.transport == "nccl") communicator.emplace(link);
  const Transport transport = options.offload ? Transport::host : transport_of(options.transport);
  const Way way{transport, options.offload, communicator ? &*communicator : nullptr};
  std::vector<nlohmann::json> lines;  // over peers every layout is verified, elsewhere those that differ
  {
    const FrozenProducts products(model_shape(options.model, options.layers), options.length);
    for (std::size_t place = 0; place < costs.size(); ++place) {
      const bool distinct = costs[place].same_as == place;
      const bool wanted = distinct || transport == Transport::peer;
      lines.push_back(wanted ? measure_layout(options, costs[place], distinct, way, products, link)
                             : describe(costs[place].variant));
      lines.back()["same_as"] = describe(costs[costs[place].same_as].variant);
      lines.back()["distinct"] = distinct;
    }
  }
  communicator.reset();
  for (std::size_t place = 0; place < costs.size() && options.steps > 0; ++place) {
    const bool wanted = transport == Transport::peer || costs[place].same_as == place;
    if (!wanted || !engine_has(costs[place].variant)) continue;
    lines[place]["step"] = measure_step_of(options, costs[place].variant, link);
  }
  if (!link.is_first()) return;
  for (nlohmann::json& line : lines) {
    line["model"] = options.model;
    line["layers"] = options.layers;
    line["seq"] = options.length;
    line["r"] = options.r;
    line["gpus"] = link.world_size();
    line["transport"] = options.offload ? "offload" : options.transport;
    line["device"] = device_name();
    fmt::print("{}\n", line.dump());
  }
}

}  // namespace
}  // namespace qshard::bench

int main(int argc, char** argv) {
  using namespace qshard;
  bench::Options options;
  CLI::App app("One rank of the table of layouts; bench/shard_layout/run starts it");
  app.add_option("--model", options.model, "llama-2-70b, llama-2-7b or llama-3-8b")
      ->check(CLI::IsMember({"llama-2-70b", "llama-2-7b", "llama-3-8b"}));
  app.add_option("--layers", options.layers, "Decoder layers that are laid out")->check(CLI::PositiveNumber);
  app.add_option("--seq", options.length, "Tokens of the products and of a step")->check(CLI::PositiveNumber);
  app.add_option("--lora-r", options.r, "Rank of the adapters")->check(CLI::PositiveNumber);
  app.add_option("--transport", options.transport, "peer, nccl or host");
  app.add_flag("--offload", options.offload, "Keep the frozen shards in host memory");
  app.add_option("--repetitions", options.repetitions, "Of each timing")->check(CLI::PositiveNumber);
  app.add_option("--steps", options.steps, "Of each layout that the engine has; the first two do not count; 0: none");
  app.add_option("--first", options.first, "Only so many layouts, from the first on; 0: all");
  CLI11_PARSE(app, argc, argv);
  try {
    RankLink link = RankLink::connect(read_rank_info(environment_variable), {.version = "shard_layout"});
    tell_failures(link, [&] { bench::measure(options, link); });
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
