#include "app/subprocess.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/error.h"

namespace qshard {
namespace {

/// One direction of a pipe pair each; closed when they go.
struct Pipe {
  std::array<int, 2> ends{-1, -1};

  Pipe() {
    if (pipe2(ends.data(), O_CLOEXEC) != 0) fail(ExitCode::out_of_resources, "pipe: {}", std::strerror(errno));
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    close_end(0);
    close_end(1);
  }
  void close_end(std::size_t end) {
    if (ends[end] >= 0) close(ends[end]);
    ends[end] = -1;
  }
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

pid_t spawn(const std::vector<std::string>& arguments, const Pipe& in, const Pipe& out, const Pipe& err) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.ends[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out.ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err.ends[1], STDERR_FILENO);
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) fail_input("{}: cannot be started: {}", arguments.front(), std::strerror(error));
  return child;
}

/// Appends what is there; false at the end.
bool read_some(int descriptor, std::string& text) {
  constexpr std::size_t kChunk = 65536;
  std::array<char, kChunk> buffer{};
  const ssize_t count = read(descriptor, buffer.data(), buffer.size());
  if (count > 0) text.append(buffer.data(), static_cast<std::size_t>(count));
  return count > 0 || (count < 0 && (errno == EINTR || errno == EAGAIN));
}

/// Hands over each whole line behind `begin` and removes those that are taken.
void take_lines(std::string& text, std::size_t& begin, const TakeErrorLine& take_error_line) {
  for (std::size_t end = text.find('\n', begin); end != std::string::npos; end = text.find('\n', begin)) {
    if (take_error_line(std::string_view(text).substr(begin, end - begin))) {
      text.erase(begin, end + 1 - begin);
    } else {
      begin = end + 1;
    }
  }
}

/// Moves bytes in all three directions until the child has closed its outputs.
void exchange(Pipe& in, Pipe& out, Pipe& err, std::string_view input, SubprocessResult& result,
              const TakeErrorLine& take_error_line) {
  std::size_t seen = 0;
  fcntl(in.ends[1], F_SETFL, O_NONBLOCK);
  if (input.empty()) in.close_end(1);
  while (out.ends[0] >= 0 || err.ends[0] >= 0) {
    std::array<pollfd, 3> ready{{{out.ends[0], POLLIN, 0}, {err.ends[0], POLLIN, 0}, {in.ends[1], POLLOUT, 0}}};
    if (poll(ready.data(), ready.size(), -1) < 0 && errno != EINTR) break;
    if (ready[0].revents != 0 && !read_some(out.ends[0], result.output)) out.close_end(0);
    if (ready[1].revents != 0 && !read_some(err.ends[0], result.error)) err.close_end(0);
    if (take_error_line) take_lines(result.error, seen, take_error_line);
    if (ready[2].revents == 0) continue;
    const ssize_t written = write(in.ends[1], input.data(), input.size());
    if (written > 0) input.remove_prefix(static_cast<std::size_t>(written));
    const bool failed = written < 0 && errno != EINTR && errno != EAGAIN;
    if (input.empty() || failed) in.close_end(1);
  }
}

}  // namespace

SubprocessResult run_subprocess(const std::vector<std::string>& arguments, std::string_view input,
                                const TakeErrorLine& take_error_line) {
  Pipe in;
  Pipe out;
  Pipe err;
  const pid_t child = spawn(arguments, in, out, err);
  const BrokenPipesIgnored until_the_end;
  in.close_end(0);
  out.close_end(1);
  err.close_end(1);
  SubprocessResult result;
  exchange(in, out, err, input, result, take_error_line);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  constexpr int kSignalBase = 128;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : kSignalBase + WTERMSIG(status);
  return result;
}

}  // namespace qshard
