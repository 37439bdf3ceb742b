#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qshard {

struct SubprocessResult {
  int exit_code = 0;  // 128 + signal where a signal ended it
  std::string output;
  std::string error;
};

/// Runs a program (found through PATH), hands `input` to its standard input and waits for it. Throws Error(bad_input)
/// where it cannot be started.
SubprocessResult run_subprocess(const std::vector<std::string>& arguments, std::string_view input);

}  // namespace qshard
