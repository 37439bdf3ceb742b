#include "app/line_process.h"

#include <array>
#include <cerrno>

#include <poll.h>
#include <unistd.h>

#include "app/child_process.h"

namespace qshard {

LineProcess::LineProcess(const std::vector<std::string>& arguments)
    : child_(std::make_unique<ChildProcess>(arguments)) {}

LineProcess::~LineProcess() {
  if (child_) end();
}

std::optional<std::string> LineProcess::ask(std::string_view line) {
  const std::string question = std::string(line) + "\n";
  std::string_view left = question;
  const BrokenPipesIgnored until_the_end;
  Pipe& out = child_->out;
  Pipe& err = child_->err;
  while (output_.find('\n') == std::string::npos) {
    const int in = left.empty() ? -1 : child_->in.ends[1];
    std::array<pollfd, 3> ready{{{out.ends[0], POLLIN, 0}, {err.ends[0], POLLIN, 0}, {in, POLLOUT, 0}}};
    if (poll(ready.data(), ready.size(), -1) < 0 && errno != EINTR) return std::nullopt;
    if (ready[1].revents != 0 && !read_some(err.ends[0], error_)) err.close_end(0);
    if (ready[0].revents != 0 && !read_some(out.ends[0], output_)) return std::nullopt;
    if (ready[2].revents == 0) continue;
    const ssize_t written = write(in, left.data(), left.size());
    if (written > 0) left.remove_prefix(static_cast<std::size_t>(written));
    if (written < 0 && errno != EINTR && errno != EAGAIN) left = {};
  }
  const std::size_t end = output_.find('\n');
  std::string answer = output_.substr(0, end);
  output_.erase(0, end + 1);
  return answer;
}

SubprocessResult LineProcess::end() {
  SubprocessResult result;
  child_->in.close_end(1);
  while (read_some(child_->out.ends[0], output_)) {
  }
  while (child_->err.ends[0] >= 0 && read_some(child_->err.ends[0], error_)) {
  }
  result.exit_code = child_->wait();
  result.error = error_;
  child_.reset();
  return result;
}

}  // namespace qshard
