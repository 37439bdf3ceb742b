#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <cuda_runtime_api.h>

namespace qshard::optimized {

/// Copies host memory to the device; done when it returns, for every stream.
void upload(void* device, const void* host, std::size_t bytes);

/// Device memory that is freed with its owner, aligned to 256 bytes, contents undefined at first. The copies below are
/// done when they return, for every stream. Throws Error(out_of_resources) where there is no such memory.
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
  [[nodiscard]] T* as(std::size_t offset_bytes = 0) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(memory_) + offset_bytes);
  }

  /// The first `bytes` bytes; at most bytes().
  void upload(const void* host, std::size_t bytes);
  void download(void* host, std::size_t bytes) const;
  template <typename T>
  [[nodiscard]] std::vector<T> download() const {
    std::vector<T> values(bytes_ / sizeof(T));
    download(values.data(), values.size() * sizeof(T));
    return values;
  }
  /// All of another buffer, of the same size or larger.
  void copy_from(const DeviceBuffer& other);
  /// Every byte.
  void fill(int byte);

 private:
  void* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace qshard::optimized
