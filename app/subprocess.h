#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace qshard {

struct SubprocessResult {
  int exit_code = 0;  // 128 + signal where a signal ended it
  std::string output;
  std::string error;
};

/// Takes a line of standard error out of the result by returning true.
using TakeErrorLine = std::function<bool(std::string_view line)>;

/// Runs a program (found through PATH), hands `input` to its standard input and waits for it; `take_error_line` sees
/// each line of its standard error as it comes. Throws Error(bad_input) where it cannot be started.
SubprocessResult run_subprocess(const std::vector<std::string>& arguments, std::string_view input,
                                const TakeErrorLine& take_error_line = {});

}  // namespace qshard
