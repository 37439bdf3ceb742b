#pragma once

#include <memory>

#include <CLI/CLI.hpp>

#include "core/sharding/device_numbers.h"

namespace qshard {

/// What the command line says of the machine that a step is predicted for; 0 and empty: the preset's.
struct DeviceNumberOptions {
  std::string gpu = "h100";
  std::string link;
  double product_rate = 0;  // TFLOP/s
  double memory_rate = 0;   // GB/s, like the ones below
  double peer_rate = 0;
  double network_rate = 0;
  double host_rate = 0;
  std::int64_t ranks_a_machine = 8;
  std::int64_t groups = 1;
  std::int64_t kept_layers = -1;  // -1: what the memory plan says
};

void add_device_number_options(CLI::App& command, const std::shared_ptr<DeviceNumberOptions>& options);

/// The preset with the given numbers in place of its own. Throws Error(bad_input) as device_numbers() does.
DeviceNumbers resolve_device_numbers(const DeviceNumberOptions& options);

}  // namespace qshard
