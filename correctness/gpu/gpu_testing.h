#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <thread>
#include <vector>

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include "core/tensor/weight4bit.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/device_buffer.h"
#include "optimized/device/stream.h"
#include "optimized/device_weight4bit.h"

namespace qshard::test {

/// Device memory, filled with a pattern that no result should keep.
class DeviceBuffer : public optimized::DeviceBuffer {
 public:
  static constexpr int kPoison = 0xA5;

  explicit DeviceBuffer(std::size_t bytes) : optimized::DeviceBuffer(bytes) { poison(); }
  template <typename T>
  explicit DeviceBuffer(std::span<const T> values) : optimized::DeviceBuffer(values.size_bytes()) {
    upload(values.data(), values.size_bytes());
  }
  template <typename T>
  explicit DeviceBuffer(const std::vector<T>& values) : DeviceBuffer(std::span<const T>(values)) {}

  void poison() { fill(kPoison); }
};

/// A weight of the host's in device memory.
class DeviceWeight {
 public:
  explicit DeviceWeight(const Weight4bitView& weight)
      : info_(*weight.info),
        codes_(weight.codes),
        absmax_(weight.absmax),
        absmax_codes_(weight.absmax_codes),
        nested_absmax_(weight.nested_absmax),
        map_(std::span<const float>(info_.nested_map)),
        offset_(std::span<const float>(&info_.offset, 1)) {}

  [[nodiscard]] optimized::DeviceWeight4bit view() const {
    optimized::DeviceWeight4bit view{info_.quant_type, info_.blocksize, element_count(info_.shape),
                                     codes_.as<std::uint8_t>()};
    if (!info_.nested) {
      view.absmax = absmax_.as<float>();
      return view;
    }
    view.absmax_codes = absmax_codes_.as<std::uint8_t>();
    view.nested_absmax = nested_absmax_.as<float>();
    view.nested_map = map_.as<float>();
    view.offset = offset_.as<float>();
    return view;
  }

 private:
  Weight4bitInfo info_;
  DeviceBuffer codes_, absmax_, absmax_codes_, nested_absmax_, map_, offset_;
};

/// A test that needs a GPU: skips, and says why, where there is none.
class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0) {
      GTEST_SKIP() << "not run: no usable GPU (" << cudaGetErrorString(status) << ")";
    }
  }
};

/// work(i, stream) for i below `count` at the same time: from a thread each, on a stream each.
template <typename Work>
void on_streams(int count, const Work& work) {
  std::vector<std::jthread> threads;
  threads.reserve(count);
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([i, &work] {
      const optimized::Stream stream;
      work(i, stream.get());
    });
  }
}

template <typename T>
std::size_t differing(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return std::max(a.size(), b.size());
  std::size_t count = 0;
  for (std::size_t i = 0; i < a.size(); ++i) count += std::memcmp(&a[i], &b[i], sizeof(T)) != 0 ? 1 : 0;
  return count;
}

}  // namespace qshard::test
