#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <cuda_runtime_api.h>

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

/// Device memory that is freed with its owner, aligned to 256 bytes. Throws Error(out_of_resources).
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(std::size_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  template <typename T = void>
  [[nodiscard]] T* as() const {
    return static_cast<T*>(data_);
  }

  void upload(const void* host, std::size_t bytes);
  void download(void* host, std::size_t bytes) const;
  void copy_from(const DeviceBuffer& other);
  /// Fills with 0xFF: NaN in every floating dtype, and no valid sequence of codes in tests on random data.
  void poison();

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace qshard::bench
