#include "core/run/run_config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <yaml-cpp/yaml.h>

#include "core/base/error.h"
#include "core/run/run_options.h"

namespace qshard {
namespace {

constexpr std::uintmax_t kLargestFile = 1U << 20U;

OptionValue to_value(const YAML::Node& node, bool takes_section, std::string_view where) {
  if (node.IsScalar()) return {false, {node.Scalar()}};
  OptionValue value{true, {}};
  if (node.IsMap() && takes_section) {
    for (const auto& entry : node) {
      if (!entry.first.IsScalar() || !entry.second.IsScalar()) fail_input("{}: expected names and plain values", where);
      value.texts.push_back(entry.first.Scalar() + "=" + entry.second.Scalar());
    }
    return value;
  }
  if (!node.IsSequence()) fail_input("{}: expected a value or a list, got a section", where);
  for (const YAML::Node& item : node) {
    if (!item.IsScalar()) fail_input("{}: a list may hold plain values only", where);
    value.texts.push_back(item.Scalar());
  }
  return value;
}

/// Reads a YAML document's keys into a RunConfig, remembering where each one stood.
class Reader {
 public:
  Reader(RunConfig& config, std::string_view file) : config_(config), file_(file) {}

  void read(const YAML::Node& document) {
    if (document.IsNull()) return;
    if (!document.IsMap()) fail_input("{}: expected keys and values, such as \"model_name_or_path: DIR\"", file_);
    read_section(document, "");
  }

  void set(const std::string& key, const YAML::Node& value, const std::string& place) {
    const RunOption* option = find_run_option(key);
    if (option == nullptr) fail_input("{}: unknown key \"{}\"{}", place, key, suggest_run_option(key));
    if (value.IsNull()) return;  // the default
    const std::string where = place + ": " + key;
    option->set(config_, to_value(value, option->takes_section, where), where);
    config_.given.insert_or_assign(key, place);
  }

 private:
  void read_section(const YAML::Node& section, const std::string& prefix) {
    for (const auto& entry : section) {
      const YAML::Node& name = entry.first;
      const YAML::Node& value = entry.second;
      const std::string place = fmt::format("{}:{}", file_, name.Mark().line + 1);
      if (!name.IsScalar()) fail_input("{}: a key must be a plain name", place);
      const std::string key = prefix + name.Scalar();
      if (prefix.empty() && value.IsMap() && is_section(key)) {
        read_section(value, key + ".");
      } else if (prefix.empty() && value.IsNull() && is_section(key)) {
        continue;
      } else {
        if (config_.has(key)) fail_input("{}: key \"{}\" is given twice (first at {})", place, key, config_.given[key]);
        set(key, value, place);
      }
    }
  }

  static bool is_section(const std::string& name) {
    return std::ranges::any_of(run_options(),
                               [&](const RunOption& option) { return option.key.starts_with(name + "."); });
  }

  RunConfig& config_;
  std::string_view file_;
};

std::string read_text(const std::string& path) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) fail_input("{}: cannot be read: {}", path, error.message());
  if (size > kLargestFile) fail_input("{}: {} bytes are too many for a run configuration", path, size);
  std::ostringstream text;
  const std::ifstream file(path, std::ios::binary);
  if (!(text << file.rdbuf()) && size > 0) fail_input("{}: cannot be read", path);
  return text.str();
}

/// A value on the command line: YAML where it is a list, the text itself otherwise (paths may hold any character).
YAML::Node command_line_value(const std::string& text) {
  if (!text.starts_with('[')) return YAML::Node(text);
  return YAML::Load(text);
}

}  // namespace

std::string RunConfig::where(std::string_view key) const {
  const auto found = given.find(key);
  return found == given.end() ? std::string(key) : fmt::format("{}: {}", found->second, key);
}

std::int64_t RunConfig::rows_per_step() const {
  return training.per_device_train_batch_size * training.gradient_accumulation_steps * fsdp.world_size;
}

RunConfig parse_run_config(std::string_view text, std::string_view file, const Overrides& overrides) {
  RunConfig config;
  Reader reader(config, file);
  try {
    reader.read(YAML::Load(std::string(text)));
    for (const auto& [key, value] : overrides) reader.set(key, command_line_value(value), "command line");
  } catch (const YAML::Exception& error) {
    if (error.mark.is_null()) fail_input("{}: not valid YAML: {}", file, error.msg);
    fail_input("{}:{}: not valid YAML: {}", file, error.mark.line + 1, error.msg);
  }
  return config;
}

RunConfig load_run_config(const std::string& path, const Overrides& overrides) {
  RunConfig config = parse_run_config(read_text(path), path, overrides);
  check_run_config(config);
  return config;
}

MomentFormat moment_format(const TrainingConfig& training) {
  switch (training.optim) {
    case Optimizer::adamw_8bit:
      return MomentFormat::blockwise_8bit;
    case Optimizer::adamw_32bit:
      return MomentFormat::float32;
    case Optimizer::adamw:
      break;
  }
  return training.optim_moments_dtype;
}

EngineOptions engine_options(const RunConfig& config, DType checkpoint_dtype) {
  EngineOptions options;
  options.world_size = static_cast<int>(config.fsdp.world_size);
  options.sharding = config.fsdp.fsdp_sharding_strategy;
  options.shard_group = static_cast<int>(config.fsdp.shard_group_size);
  options.transport = config.fsdp.transport;
  options.offload = config.fsdp.fsdp_offload_params;
  options.quantization = config.quantization;
  options.lora = config.lora;
  options.optimizer = {config.training.adam_beta1, config.training.adam_beta2, config.training.adam_epsilon,
                       config.training.weight_decay, moment_format(config.training)};
  options.max_grad_norm = config.training.max_grad_norm;
  options.dtype = config.dtype.value_or(checkpoint_dtype);
  options.compute_dtype = config.training.bf16 ? DType::bf16 : config.training.fp16 ? DType::f16 : config.compute_dtype;
  options.gradient_checkpointing = config.training.gradient_checkpointing;
  options.activation_offloading = config.training.activation_offloading;
  options.memory_budget = static_cast<std::int64_t>(config.training.memory_budget_gib * (std::int64_t{1} << 30));
  options.seed = static_cast<std::uint64_t>(config.training.seed);
  return options;
}

}  // namespace qshard
