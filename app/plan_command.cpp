#include <cstdio>

#include "app/commands.h"
#include "app/config_options.h"
#include "app/load_model.h"
#include "app/plan_json.h"
#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/hf_config.h"
#include "core/run/engine_options.h"
#include "core/sharding/shard_layout.h"

namespace qshard {
namespace {

/// Needs config.json only, unless the checkpoint is quantized already: then its 4-bit weights' metadata too.
ShardLayout plan(const RunConfig& config) {
  const std::filesystem::path directory = config.model_name_or_path;
  const ModelConfig llama = read_hf_config(directory / "config.json");
  std::optional<AdapterConfig> adapter;
  if (!config.adapter_name_or_path.empty()) {
    const auto path = std::filesystem::path(config.adapter_name_or_path) / "adapter_config.json";
    adapter = parse_adapter_config(read_file(path), path.string());
  }
  std::optional<HfCheckpoint> checkpoint;
  if (llama.prequantized_4bit) checkpoint = HfCheckpoint::open(directory);
  const PrequantizedInfo prequantized = [&](const std::string& name, const Shape&) -> std::optional<Weight4bitInfo> {
    if (!checkpoint || !has_weight4bit(*checkpoint, name)) return std::nullopt;
    return read_weight4bit_info(*checkpoint, name);
  };
  const EngineOptions options = resolve_options(config, llama, adapter);
  return plan_shards(list_model_stages(llama, options.quantization, options.lora, options.dtype, prequantized),
                     options.world_size, options.sharding);
}

}  // namespace

void add_plan_command(CLI::App& app) {
  auto path = std::make_shared<std::string>();
  auto overrides = std::make_shared<Overrides>();
  CLI::App* command =
      app.add_subcommand("plan", "The shard layout: units, what each rank holds, padding, messages; reads no weights");
  command->add_option("CONFIG", *path, "Run configuration (YAML)")->required();
  add_config_options(*command, overrides, {});
  auto json = std::make_shared<std::string>();
  command->add_option("--json", *json, "Write what each rank holds to this file, for `qshard report`");
  command->callback([path, overrides, json] {
    const ShardLayout layout = plan(load_run_config(*path, *overrides));
    fmt::print("{}", describe(layout));
    if (json->empty()) return;
    const std::string name = std::filesystem::absolute(*path).lexically_normal().parent_path().filename().string();
    write_file(*json, plan_json(layout, name));
  });
}

}  // namespace qshard
