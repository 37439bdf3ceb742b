#pragma once

#include <algorithm>
#include <cstdint>

namespace qshard::reference {

/// Counts the bytes one rank holds and remembers the most it ever held.
class MemoryLedger {
 public:
  void add(std::int64_t bytes) {
    held_ += bytes;
    peak_ = std::max(peak_, held_);
  }
  void release(std::int64_t bytes) { held_ -= bytes; }
  [[nodiscard]] std::int64_t held() const { return held_; }
  [[nodiscard]] std::int64_t peak() const { return peak_; }

 private:
  std::int64_t held_ = 0;
  std::int64_t peak_ = 0;
};

}  // namespace qshard::reference
