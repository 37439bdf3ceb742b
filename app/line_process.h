#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "app/subprocess.h"

namespace qshard {

struct ChildProcess;

/// A program that answers lines: each line on its standard input by one on its standard output. It is asked to end, by
/// the end of its input, and waited for when this object goes.
class LineProcess {
 public:
  /// Throws Error(bad_input) where it cannot be started.
  explicit LineProcess(const std::vector<std::string>& arguments);
  LineProcess(const LineProcess&) = delete;
  LineProcess& operator=(const LineProcess&) = delete;
  ~LineProcess();

  /// Its answer, or nothing where it ended instead: see end().
  std::optional<std::string> ask(std::string_view line);

  /// Ends it: its exit code and what it wrote to standard error.
  SubprocessResult end();

 private:
  std::unique_ptr<ChildProcess> child_;
  std::string output_;  // not yet asked for
  std::string error_;
};

}  // namespace qshard
