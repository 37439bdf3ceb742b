#include "app/device_number_options.h"

#include <fmt/ranges.h>

namespace qshard {

namespace {

constexpr double kGiga = 1e9;

void replace(double& number, double given, double unit) {
  if (given > 0) number = given * unit;
}

}  // namespace

void add_device_number_options(CLI::App& command, const std::shared_ptr<DeviceNumberOptions>& options) {
  constexpr const char* kGroup = "Predicted step time";
  const auto add = [&](const char* name, auto& member, const std::string& doc) {
    return command.add_option(name, member, doc)->group(kGroup)->capture_default_str();
  };
  add("--gpu", options->gpu,
      fmt::format("Preset, measured for h100 and h200, else from published numbers: {}", fmt::join(gpu_names(), ", ")));
  add("--link", options->link,
      fmt::format("What connects the ranks: {}; without it, what the GPU usually has", fmt::join(link_names(), ", ")));
  add("--product-rate", options->product_rate, "TFLOP/s of 16-bit products in a long step; 0: the preset's")
      ->check(CLI::NonNegativeNumber);
  add("--memory-rate", options->memory_rate, "GB/s of a copy in GPU memory, read plus written; 0: the preset's")
      ->check(CLI::NonNegativeNumber);
  add("--peer-rate", options->peer_rate, "GB/s that a rank receives within a machine; 0: the preset's")
      ->check(CLI::NonNegativeNumber);
  add("--network-rate", options->network_rate, "GB/s that a GPU receives from other machines; 0: the preset's")
      ->check(CLI::NonNegativeNumber);
  add("--host-rate", options->host_rate, "GB/s from host memory; 0: the preset's")->check(CLI::NonNegativeNumber);
  add("--gpus-per-machine", options->ranks_a_machine, "Ranks that a machine holds")->check(CLI::Range(1, 1 << 10));
  add("--groups", options->groups, "Groups of fsdp.world_size ranks, each with the whole model (HYBRID_SHARD)")
      ->check(CLI::Range(1, 1 << 20));
  add("--kept-layers", options->kept_layers, "Layers whose activations are kept; -1: what the plan of memory says")
      ->check(CLI::Range(-1, 1 << 20));
}

DeviceNumbers resolve_device_numbers(const DeviceNumberOptions& options) {
  DeviceNumbers numbers = device_numbers(options.gpu, options.link);
  replace(numbers.product_rate, options.product_rate, 1e12);
  replace(numbers.memory_rate, options.memory_rate, kGiga);
  replace(numbers.peer_rate, options.peer_rate, kGiga);
  replace(numbers.network_rate, options.network_rate, kGiga);
  replace(numbers.host_rate, options.host_rate, kGiga);
  return numbers;
}

}  // namespace qshard
