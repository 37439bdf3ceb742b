#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

namespace qshard {

/// Text for whoever watches a run: lines that stay, and on a terminal one live line below them.
class Progress {
 public:
  /// Writes to `out`, with a live line where it is a terminal; nullptr: writes nothing.
  explicit Progress(std::FILE* out);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();

  [[nodiscard]] bool live() const { return live_; }

  /// Replaces the live line, at most ten times a second; nothing where there is none.
  void show(std::string_view text);
  /// Writes a line that stays. Throws Error as fail_to_write does where it cannot be written.
  void print(std::string_view text);

 private:
  void clear();

  std::FILE* out_;
  bool live_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point last_;
};

/// "0.4 s", "12 s", "3 min 20 s", "2 h 05 min".
std::string format_duration(double seconds);

/// "512 B", "3.4 MiB", "1.2 GiB".
std::string format_bytes(double bytes);

/// Peak resident memory of this process in bytes (0 where the system does not tell), pages of mapped files included.
double process_peak_bytes();

/// Memory of its own that this process holds now: resident pages that no file stands behind (0 as above).
double process_own_bytes();

}  // namespace qshard
