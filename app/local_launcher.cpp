#include "app/local_launcher.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/error.h"

namespace qshard {
namespace {

using std::chrono::steady_clock;

constexpr int kSignalBase = 128;
constexpr long kGrace = 30;  // seconds
constexpr long kMostGrace = 86'400;

std::vector<std::string> own_arguments() {
  std::ifstream file("/proc/self/cmdline");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  std::vector<std::string> arguments;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\0', begin), text.size());
    arguments.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return arguments;
}

/// For the survivors of a failure to end by themselves, which takes them milliseconds, but on a busy machine many.
std::chrono::seconds grace() {
  const char* text = std::getenv("QSHARD_GRACE_SECONDS");
  if (text == nullptr) return std::chrono::seconds(kGrace);
  char* end = nullptr;
  const long seconds = std::strtol(text, &end, 10);
  if (end == text || *end != '\0' || seconds < 0 || seconds > kMostGrace) {
    fail_input("QSHARD_GRACE_SECONDS: \"{}\" must be a whole number from 0 to {}", text, kMostGrace);
  }
  return std::chrono::seconds(seconds);
}

/// The processes of one job.
class Children {
 public:
  explicit Children(int ranks) : job_(fmt::format("{}-{:08x}", ::getpid(), std::random_device{}())) {
    for (const int number : {SIGCHLD, SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals_, number);
    sigprocmask(SIG_BLOCK, &signals_, &before_);
    for (int rank = 0; rank < ranks; ++rank) start(rank, ranks);
  }

  int wait() {
    while (running() > 0) {
      siginfo_t info{};
      const timespec pause{0, 200'000'000};
      const int number = sigtimedwait(&signals_, &info, &pause);
      if (number > 0 && number != SIGCHLD) pass_on(number, info.si_code == SI_KERNEL);
      reap();
      if (failed_ && steady_clock::now() > failed_at_ + grace_) send(SIGKILL);
    }
    return stopped_by_ != 0 && code_ != 0 ? kSignalBase + stopped_by_ : code_;
  }

 private:
  void start(int rank, int ranks) {
    const pid_t parent = ::getpid();
    const pid_t child = ::fork();
    if (child < 0) {
      send(SIGKILL);
      fail(ExitCode::out_of_resources, "cannot start rank {}: {}", rank, std::strerror(errno));
    }
    if (child > 0) {
      children_.push_back(child);
      return;
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(static_cast<int>(ExitCode::rank_failed));  // it ended in between
    sigprocmask(SIG_SETMASK, &before_, nullptr);
    run(rank, ranks);
  }

  [[noreturn]] void run(int rank, int ranks) const {
    const unsigned processors = std::max(1U, std::thread::hardware_concurrency() / static_cast<unsigned>(ranks));
    ::setenv("OMP_NUM_THREADS", std::to_string(processors).c_str(), 0);
    ::setenv("QSHARD_RANK", std::to_string(rank).c_str(), 1);
    ::setenv("QSHARD_LOCAL_RANK", std::to_string(rank).c_str(), 1);
    ::setenv("QSHARD_WORLD_SIZE", std::to_string(ranks).c_str(), 1);
    ::setenv("QSHARD_JOB", job_.c_str(), 1);
    std::vector<std::string> arguments = own_arguments();
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    ::execv("/proc/self/exe", argv.data());
    ::_exit(static_cast<int>(ExitCode::rank_failed));
  }

  [[nodiscard]] std::ptrdiff_t running() const {
    return std::ranges::count_if(children_, [](pid_t child) { return child > 0; });
  }

  void send(int number) const {
    for (const pid_t child : children_) {
      if (child > 0) ::kill(child, number);
    }
  }

  /// A terminal's Ctrl-C has reached the children already, as they are in its group too.
  void pass_on(int number, bool from_terminal) {
    stopped_by_ = number;
    if (!from_terminal) send(number);
  }

  void reap() {
    for (std::size_t rank = 0; rank < children_.size(); ++rank) {
      int status = 0;
      if (children_[rank] <= 0 || ::waitpid(children_[rank], &status, WNOHANG) != children_[rank]) continue;
      const pid_t child = children_[rank];
      children_[rank] = 0;
      if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
      if (WIFSIGNALED(status) && stopped_by_ == 0) {
        fmt::print(stderr, "qshard: error: rank {} (process {}) was ended by signal {} ({})\n", rank, child,
                   WTERMSIG(status), ::strsignal(WTERMSIG(status)));
      }
      if (failed_) continue;
      failed_ = true;
      failed_at_ = steady_clock::now();
      code_ = WIFEXITED(status) ? WEXITSTATUS(status) : static_cast<int>(ExitCode::rank_failed);
    }
  }

  std::string job_;
  std::chrono::seconds grace_ = grace();
  std::vector<pid_t> children_;  // index = rank; 0 once it has ended
  sigset_t signals_{};
  sigset_t before_{};
  int stopped_by_ = 0;
  bool failed_ = false;
  steady_clock::time_point failed_at_;
  int code_ = 0;
};

}  // namespace

int launch_ranks(int ranks) {
  return Children(ranks).wait();
}

}  // namespace qshard
