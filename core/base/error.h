#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace qshard {

/// What the process returns; the same numbers in every subcommand.
enum class ExitCode : int {
  done = 0,
  check_failed = 1,      // a verification or the gate failed
  bad_input = 2,         // bad input or usage
  out_of_resources = 3,  // not enough memory or disk
  rank_failed = 4,       // a rank or the communicator failed
  unsure = 5,            // UNSURE from the gate under --strict
};

/// The project's one exception type, caught once in main. Its message says what is wrong, where (file, key, tensor,
/// line) and what to do.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// Throws Error(code, formatted message).
template <typename... Args>
[[noreturn]] void fail(ExitCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

/// Throws Error(bad_input, formatted message).
template <typename... Args>
[[noreturn]] void fail_input(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ExitCode::bad_input, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace qshard
