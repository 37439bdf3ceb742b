#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/gpu/device.h"
#include "bench/gpu/host_weight.h"
#include "bench/gpu/problem.h"
#include "bench/providers/provider.h"

namespace qshard::bench {

/// The device memory of one row: several copies of its inputs and outputs, so that rotating among them finds the L2
/// cache cold, and what the outputs must be.
class Workload {
 public:
  /// warm: one copy only. Otherwise as many as CopyCount says.
  Workload(const qshard_problem& problem, const Provider& provider, HostWeight& weight, std::size_t l2_bytes,
           bool warm);

  [[nodiscard]] int copies() const { return static_cast<int>(copies_.size()); }
  /// False where calls are to find the L2 cache cold, but the copies are too few for that.
  [[nodiscard]] bool fills_cache() const { return fills_cache_; }
  [[nodiscard]] const qshard_buffers& buffers(int copy) const { return copies_.at(copy).pointers; }

  /// Fills every output with NaN patterns.
  void poison();

  /// Depends on every byte of every copy's inputs.
  [[nodiscard]] std::uint64_t hash_inputs() const;

  /// Judges the outputs of every copy: to the bit for dequantize and quantize, by check_product()'s bound otherwise.
  /// Returns what is wrong, with numbers; empty: nothing. worst(): the largest difference over its bound so far.
  [[nodiscard]] std::string check();
  [[nodiscard]] double worst() const { return worst_; }

  /// For a provider that computes on the host: one set of buffers there, and its outputs copied to copy 0.
  qshard_buffers host_buffers();
  void upload_host_outputs();

 private:
  enum Field { kWeight, kCodes, kAbsmax, kAbsmaxCodes, kNestedAbsmax, kOffset, kX, kY, kFields };
  enum class Role : std::uint8_t { unused, input, output };

  struct Copy {
    std::array<DeviceBuffer, kFields> memory;
    qshard_buffers pointers{};
  };

  [[nodiscard]] std::array<Role, kFields> roles() const;
  [[nodiscard]] std::array<std::size_t, kFields> sizes() const;
  [[nodiscard]] const void* host_input(Field field);
  void make_pointers(Copy& copy);
  [[nodiscard]] std::string check_bits(const Copy& copy, Field field, const void* expected, const char* what);
  [[nodiscard]] std::string check_quantized(const Copy& copy);
  [[nodiscard]] std::string check_linear(const Copy& copy);

  qshard_problem problem_;
  HostWeight& weight_;
  bool dense_ = false;
  bool fills_cache_ = true;
  int product_roundings_ = 0;
  double worst_ = 0;
  std::vector<Copy> copies_;
  DeviceBuffer nested_map_;
  DeviceBuffer workspace_;
  DeviceBuffer dequantized_;                    // linear layers: what check_product() sums over
  std::array<DeviceBuffer, kFields> expected_;  // uploaded when first compared
  std::optional<float> expected_offset_;        // nested quantize: the offset that the expected codes belong to
  Tensor x_;
  Tensor y_;
  std::array<std::vector<std::byte>, kFields> host_outputs_;
};

}  // namespace qshard::bench
