#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace qshard::bench {

/// Nanoseconds on CUPTI's clock.
struct TimeSpan {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::string name = {};  // of what the GPU did: a kernel's mangled name, or a word
};

/// The part of `window` in which none of `busy` lies, 0 to 1.
double idle_fraction(TimeSpan window, std::vector<TimeSpan> busy);

struct NamedTime {
  std::string name;
  std::int64_t count = 0;
  double seconds = 0;
};

/// The window's time by what ended it: each span counts from the end of those before it, or from its own begin where
/// the GPU did nothing in between ("idle"). The most time first. A kernel that begins early and waits for others thus
/// counts only what it takes longer than they do. Kernels without template arguments and parameters.
std::vector<NamedTime> times_by_name(const TimeSpan& window, std::vector<TimeSpan> busy);

/// times_by_name() of a window of `count` equal parts (steps, tokens): name, launches and microseconds of one part.
nlohmann::json kernel_times(const TimeSpan& window, std::vector<TimeSpan> busy, int count);

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
