#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include "core/launch/rank_link.h"

namespace qshard {

/// The place of one of `world_size` ranks that meet at a local socket of this name.
inline RankInfo local_rank_info(int rank, int world_size, const std::string& job) {
  RankInfo info;
  info.launcher = Launcher::own;
  info.rank = rank;
  info.world_size = world_size;
  info.rendezvous = Rendezvous::local_socket;
  info.job = job;
  return info;
}

/// A name that no other test has.
inline std::string unique_job() {
  static std::atomic<int> count{0};
  return "test-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
}

/// Short limits, and no end of the process: ranks are threads of it.
inline RankLinkOptions thread_options() {
  RankLinkOptions options;
  options.version = "test";
  options.connect_timeout = std::chrono::milliseconds{20'000};
  options.end_process = false;
  return options;
}

/// Runs `work` on `world_size` linked ranks, a thread each. Returns what each of them threw (empty: nothing).
inline std::vector<std::string> run_ranks_as_threads(int world_size, const std::function<void(RankLink&)>& work,
                                                     const RankLinkOptions& options = thread_options()) {
  const std::string job = unique_job();
  std::vector<std::string> errors(static_cast<std::size_t>(world_size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        RankLink link = RankLink::connect(local_rank_info(rank, world_size, job), options);
        tell_failures(link, [&] { work(link); });
      } catch (const std::exception& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

}  // namespace qshard
