#include "app/memory_peak.h"

#include <algorithm>
#include <chrono>

#include "core/base/progress.h"

namespace qshard {

MemoryPeak::MemoryPeak()
    : thread_([this](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
          look();
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
      }) {}

void MemoryPeak::look() {
  most_ = std::max(most_.load(), process_own_bytes());
}

double MemoryPeak::bytes() {
  look();
  return most_;
}

}  // namespace qshard
