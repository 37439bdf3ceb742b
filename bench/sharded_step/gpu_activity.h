#pragma once

#include <cstdint>
#include <vector>

namespace qshard::bench {

/// Nanoseconds on CUPTI's clock.
struct TimeSpan {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

/// The part of `window` in which none of `busy` lies, 0 to 1.
double idle_fraction(TimeSpan window, std::vector<TimeSpan> busy);

/// Records when this process's GPU works: kernels, copies and memsets, from CUPTI's activity records. Its library is
/// opened at run time. One object at a time.
class GpuActivity {
 public:
  /// From here on everything is recorded. Throws Error(bad_input) where this program was built without CUPTI's
  /// headers, or the library is not there or refuses.
  GpuActivity();
  ~GpuActivity();
  GpuActivity(const GpuActivity&) = delete;
  GpuActivity& operator=(const GpuActivity&) = delete;

  [[nodiscard]] std::uint64_t now() const;
  /// Everything that the GPU did until now; call it when the device is synchronized.
  [[nodiscard]] std::vector<TimeSpan> busy() const;
};

}  // namespace qshard::bench
