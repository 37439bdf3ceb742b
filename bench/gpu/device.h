#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "optimized/device/device_buffer.h"

namespace qshard::bench {

struct DeviceInfo {
  std::string name;
  std::string driver;      // NVIDIA's driver version where NVML tells it, else the CUDA version it supports
  std::string compute;     // "9.0"
  std::string pci_bus_id;  // for NVML
  std::size_t l2_bytes = 0;
  std::size_t memory_bytes = 0;
};

/// Empty where a GPU can be used, otherwise why there is none.
std::string why_no_gpu();

/// Of the current device.
DeviceInfo device_info();

using optimized::DeviceBuffer;

/// Fills with 0xFF: NaN in every floating dtype, and no valid sequence of codes in tests on random data.
void poison(DeviceBuffer& buffer);

}  // namespace qshard::bench
