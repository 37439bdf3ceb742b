#pragma once

#include <csignal>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/file.h"

namespace qshard {

/// The built qshard program with these arguments, its outputs going to `log`. `variables` are added to its environment,
/// and the words of `launcher`, if any, stand in front of the program's name.
class RunningProgram {
 public:
  RunningProgram(std::vector<std::string> arguments, std::filesystem::path log,
                 const std::vector<std::pair<std::string, std::string>>& variables = {},
                 const std::vector<std::string>& launcher = {})
      : log_(std::move(log)) {
    arguments.insert(arguments.begin(), QSHARD_PROGRAM);
    arguments.insert(arguments.begin(), launcher.begin(), launcher.end());
    std::vector<char*> argv;
    argv.reserve(arguments.size() + 1);
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    process_ = ::fork();
    if (process_ < 0) throw std::runtime_error("fork failed");
    if (process_ > 0) return;
    const int file = ::open(log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(file, STDOUT_FILENO);
    ::dup2(file, STDERR_FILENO);
    for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  RunningProgram(const RunningProgram&) = delete;
  RunningProgram& operator=(const RunningProgram&) = delete;
  ~RunningProgram() {
    if (running()) kill();
  }

  [[nodiscard]] pid_t process() const { return process_; }

  [[nodiscard]] bool running() {
    if (process_ > 0 && ::waitpid(process_, &status_, WNOHANG) == process_) process_ = 0;
    return process_ > 0;
  }

  /// As kill -9.
  void kill() {
    ::kill(process_, SIGKILL);
    wait();
  }

  /// Exit code, or 128 + signal.
  int wait() {
    if (process_ > 0) ::waitpid(process_, &status_, 0);
    process_ = 0;
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }

  [[nodiscard]] std::string output() const { return read_file(log_); }

 private:
  std::filesystem::path log_;
  pid_t process_ = 0;
  int status_ = 0;
};

}  // namespace qshard
