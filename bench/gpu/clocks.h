#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace qshard::bench {

/// What NVML says at one moment; all zero where NVML cannot be loaded.
struct ClockSample {
  unsigned sm_mhz = 0;
  unsigned memory_mhz = 0;
  std::uint64_t slowdown_reasons = 0;  // nvmlClocksEventReason bits that mean a limit, idle and user settings left out

  [[nodiscard]] bool power_limited() const;
  [[nodiscard]] bool throttled() const;  // thermal or hardware slowdown
};

/// A GPU's clocks, read through libnvidia-ml.so.1, which is loaded when made and may be missing. Reads only; never
/// changes a setting.
class Clocks {
 public:
  explicit Clocks(const std::string& pci_bus_id);
  ~Clocks();
  Clocks(const Clocks&) = delete;
  Clocks& operator=(const Clocks&) = delete;

  [[nodiscard]] bool available() const;
  [[nodiscard]] ClockSample sample() const;
  /// That the GPU has used since its driver was loaded, a count that changes some ten times a second; 0 where unknown.
  [[nodiscard]] double joules() const;
  [[nodiscard]] std::string driver_version() const;

 private:
  struct Library;
  std::unique_ptr<Library> library_;
};

}  // namespace qshard::bench
