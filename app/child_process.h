#pragma once

#include <array>
#include <csignal>
#include <cstddef>
#include <string>
#include <vector>

#include <sys/types.h>

namespace qshard {

/// A pipe, closed when it goes: what is written to ends[1] is read from ends[0].
struct Pipe {
  std::array<int, 2> ends{-1, -1};

  Pipe();
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe();
  void close_end(std::size_t end);
};

/// While it lives, a child that ends early does not end this process through its closed pipe.
class BrokenPipesIgnored {
 public:
  BrokenPipesIgnored() : before_(std::signal(SIGPIPE, SIG_IGN)) {}
  BrokenPipesIgnored(const BrokenPipesIgnored&) = delete;
  BrokenPipesIgnored& operator=(const BrokenPipesIgnored&) = delete;
  ~BrokenPipesIgnored() { std::signal(SIGPIPE, before_); }

 private:
  sighandler_t before_;
};

/// A running program (found through PATH) and the pipes of its standard streams. Throws Error(bad_input) where it
/// cannot be started.
struct ChildProcess {
  explicit ChildProcess(const std::vector<std::string>& arguments);

  /// Waits for its end: its exit code, or 128 + signal.
  [[nodiscard]] int wait() const;

  Pipe in;
  Pipe out;
  Pipe err;
  pid_t id = 0;
};

/// Appends what is there; false at the end.
bool read_some(int descriptor, std::string& text);

}  // namespace qshard
