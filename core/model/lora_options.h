#pragma once

#include <string>
#include <vector>

namespace qshard {

struct LoraOptions {
  int r = 16;
  double alpha = 32;
  double dropout = 0.0;
  std::vector<std::string> target_modules{"all-linear"};  // all-linear leaves the output head out
};

}  // namespace qshard
