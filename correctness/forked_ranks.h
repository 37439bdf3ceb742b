#pragma once

#include <csignal>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/error.h"
#include "correctness/ranks_as_threads.h"

namespace qshard {

/// Linked ranks, a process each, so that they can be killed. Each writes its error into a pipe and says goodbye before
/// it ends.
class ForkedRanks {
 public:
  ForkedRanks(int world_size, const RankLinkOptions& options, const std::function<void(RankLink&)>& work) {
    const std::string job = unique_job();
    for (int rank = 0; rank < world_size; ++rank) {
      int ends[2];
      if (::pipe(ends) != 0) throw std::runtime_error("pipe");
      const pid_t child = ::fork();
      if (child == 0) {
        ::close(ends[0]);
        ::dup2(ends[1], STDERR_FILENO);
        ::_exit(run(local_rank_info(rank, world_size, job), options, work));
      }
      ::close(ends[1]);
      children_.push_back(child);
      pipes_.push_back(ends[0]);
    }
  }

  void kill(int rank, int signal) { ::kill(children_[static_cast<std::size_t>(rank)], signal); }

  /// Exit code, 1 after an expectation that failed there; or 128 + signal.
  int wait(int rank) {
    int status = 0;
    ::waitpid(children_[static_cast<std::size_t>(rank)], &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  std::string error(int rank) {
    std::string text;
    char buffer[4096];
    for (ssize_t n = 1; n > 0;) {
      n = ::read(pipes_[static_cast<std::size_t>(rank)], buffer, sizeof(buffer));
      if (n > 0) text.append(buffer, static_cast<std::size_t>(n));
    }
    return text;
  }

 private:
  static int run(const RankInfo& info, const RankLinkOptions& options, const std::function<void(RankLink&)>& work) {
    try {
      RankLink link = RankLink::connect(info, options);
      tell_failures(link, [&] { work(link); });
      return testing::Test::HasFailure() ? 1 : 0;
    } catch (const Error& error) {
      dprintf(STDERR_FILENO, "%s\n", error.what());
      return static_cast<int>(error.code());
    }
  }

  std::vector<pid_t> children_;
  std::vector<int> pipes_;
};

}  // namespace qshard
