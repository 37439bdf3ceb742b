#include "core/training/run_settings.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "core/base/xxh64.h"
#include "core/run/run_options.h"
#include "core/training/moment_arrays.h"

namespace qshard {
namespace {

constexpr std::array kAdjustable{"training.learning_rate", "training.lr_scheduler_type", "training.warmup_steps",
                                 "training.warmup_ratio",  "training.weight_decay",      "training.adam_beta1",
                                 "training.adam_beta2",    "training.adam_epsilon",      "training.max_grad_norm"};
constexpr std::array kQuantization{"quantization.load_in_4bit", "quantization.bnb_4bit_quant_type",
                                   "quantization.blocksize", "quantization.bnb_4bit_use_double_quant"};

template <typename Keys>
void add_options(const Keys& keys, const RunConfig& config, Json& settings) {
  for (const char* key : keys) settings[key] = find_run_option(key)->get(config);
}

/// All that adapter_config.json says, but for what is no part of the computation.
void add_adapter(const AdapterConfig& adapter, Json& settings) {
  const Json values = parse_json(adapter_config_text(adapter), "adapter_config.json");
  for (const auto& item : values.items()) {
    const std::string& key = item.key();
    if (key == "base_model_name_or_path" || key == "lora_dropout" || key == "inference_mode" ||
        item.value().is_null()) {
      continue;
    }
    Json value = item.value();
    if (value.is_array()) std::sort(value.begin(), value.end());
    settings["lora." + key] = value;
  }
}

/// Hashes of equal pieces of the bytes, in order.
std::vector<std::uint64_t> piece_hashes(std::span<const std::byte> bytes) {
  constexpr std::size_t kPiece = std::size_t{64} << 20U;
  constexpr unsigned kMostThreads = 8;
  std::vector<std::uint64_t> hashes((bytes.size() + kPiece - 1) / kPiece);
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < hashes.size(); i = next++) {
      hashes[i] = xxh64(bytes.subspan(i * kPiece, std::min(kPiece, bytes.size() - i * kPiece)));
    }
  };
  const auto threads =
      std::min<std::size_t>(std::min(std::thread::hardware_concurrency(), kMostThreads), hashes.size());
  std::vector<std::jthread> others;
  for (std::size_t i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  others.clear();
  return hashes;
}

std::string hex(std::uint64_t hash) {
  return fmt::format("{:016x}", hash);
}

}  // namespace

RunSettings run_settings(const RunConfig& config, const EngineOptions& options, const AdapterConfig& adapter,
                         std::string_view base_weights) {
  RunSettings settings;
  settings.fixed["base_weights"] = base_weights;
  settings.fixed["dtype"] = torch_name(options.dtype);
  settings.fixed["quantization.bnb_4bit_compute_dtype"] = torch_name(options.compute_dtype);
  settings.fixed["training.optim_moments_dtype"] = moment_kind(moment_dtype(options.optimizer.moments, options.dtype));
  add_options(kQuantization, config, settings.fixed);
  add_adapter(adapter, settings.fixed);
  add_options(kAdjustable, config, settings.adjustable);
  settings.adjustable["lora.lora_dropout"] = options.lora.dropout;
  return settings;
}

std::string base_weights_hash(const HfCheckpoint& checkpoint) {
  Json config = parse_json(checkpoint.config().text, "config.json");
  for (const char* key : {"transformers_version", "_name_or_path"}) config.erase(key);
  std::string text = config.dump();
  for (const SafetensorsFile& file : checkpoint.files()) {
    for (const std::uint64_t hash : piece_hashes(file.bytes())) text += hex(hash);
    text += '\n';
  }
  return hex(xxh64(std::as_bytes(std::span(text))));
}

std::vector<std::string> differing_settings(const Json& saved, const Json& now) {
  std::set<std::string> names;
  for (const Json* side : {&saved, &now}) {
    for (const auto& item : side->items()) names.insert(item.key());
  }
  const auto text = [](const Json& settings, const std::string& name) {
    const auto found = settings.find(name);
    if (found == settings.end()) return std::string("not given");
    return found->is_string() ? found->get<std::string>() : found->dump();
  };
  std::vector<std::string> lines;
  for (const std::string& name : names) {
    const std::string before = text(saved, name);
    const std::string after = text(now, name);
    if (before != after) lines.push_back(fmt::format("{} was {} and is now {}", name, before, after));
  }
  return lines;
}

}  // namespace qshard
