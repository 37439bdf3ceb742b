#include "app/subprocess.h"

#include <array>
#include <cerrno>

#include <poll.h>
#include <unistd.h>

#include "app/child_process.h"

namespace qshard {
namespace {

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
void exchange(ChildProcess& child, std::string_view input, SubprocessResult& result,
              const TakeErrorLine& take_error_line) {
  std::size_t seen = 0;
  Pipe& in = child.in;
  Pipe& out = child.out;
  Pipe& err = child.err;
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
  ChildProcess child(arguments);
  const BrokenPipesIgnored until_the_end;
  SubprocessResult result;
  exchange(child, input, result, take_error_line);
  result.exit_code = child.wait();
  return result;
}

}  // namespace qshard
