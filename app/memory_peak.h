#pragma once

#include <atomic>
#include <thread>

namespace qshard {

/// The most memory of its own (process_own_bytes) that the process holds while this lives, looked at every few
/// milliseconds by a thread. The system's own peak would count the pages of mapped files too.
class MemoryPeak {
 public:
  MemoryPeak();

  [[nodiscard]] double bytes();

 private:
  void look();

  std::atomic<double> most_{0};
  std::jthread thread_;
};

}  // namespace qshard
