#include "core/base/processor.h"

#include <algorithm>
#include <fstream>
#include <thread>

namespace qshard {

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(": ") + 2);
  }
  return "unknown processor";
}

int processor_share(int processes) {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / processes, 1, 16);
}

}  // namespace qshard
