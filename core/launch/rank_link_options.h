#pragma once

#include <chrono>
#include <string>

namespace qshard {

struct RankLinkOptions {
  std::string version;                                  // of the program; all ranks must have the same
  std::chrono::milliseconds connect_timeout{120'000};   // for all ranks to come
  std::chrono::milliseconds heartbeat_interval{1'000};  // between signs of life
  std::chrono::milliseconds silence_limit{10'000};      // a rank not heard for longer counts as dead
  std::chrono::milliseconds unwind_limit{2'000};        // for the main thread to end by itself after a failure
  bool end_process = true;                              // after unwind_limit; tests with ranks as threads say false
};

}  // namespace qshard
