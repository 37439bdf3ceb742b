#include "bench/gpu/device.h"

#include <array>

#include <cuda_runtime_api.h>

#include "bench/gpu/clocks.h"
#include "core/base/error.h"
#include "optimized/device/cuda_check.h"

namespace qshard::bench {

std::string why_no_gpu() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) return fmt::format("cudaGetDeviceCount: {}", cudaGetErrorString(status));
  return count == 0 ? "the driver lists no device" : "";
}

DeviceInfo device_info() {
  int device = 0;
  QSHARD_CUDA_CHECK(cudaGetDevice(&device));
  cudaDeviceProp properties{};
  QSHARD_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  std::array<char, 32> bus{};
  QSHARD_CUDA_CHECK(cudaDeviceGetPCIBusId(bus.data(), static_cast<int>(bus.size()), device));
  int version = 0;
  QSHARD_CUDA_CHECK(cudaDriverGetVersion(&version));

  DeviceInfo info;
  info.name = properties.name;
  info.compute = fmt::format("{}.{}", properties.major, properties.minor);
  info.pci_bus_id = bus.data();
  info.l2_bytes = static_cast<std::size_t>(properties.l2CacheSize);
  info.memory_bytes = properties.totalGlobalMem;
  const std::string driver = Clocks(info.pci_bus_id).driver_version();
  info.driver = driver.empty() ? fmt::format("CUDA {}.{}", version / 1000, version % 1000 / 10) : driver;
  return info;
}

void poison(DeviceBuffer& buffer) {
  buffer.fill(0xFF);
}

}  // namespace qshard::bench
