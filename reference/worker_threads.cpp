#include "reference/worker_threads.h"

#include <atomic>
#include <exception>
#include <latch>
#include <thread>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "core/base/error.h"

namespace qshard::reference {
namespace {

constexpr int kMost = 4096;

int wanted_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

/// True where `count` threads can be there at once.
bool can_start(int count) {
  std::latch tried(1);
  std::vector<std::jthread> threads;
  threads.reserve(static_cast<std::size_t>(count));
  bool can = true;
  try {
    while (static_cast<int>(threads.size()) < count) threads.emplace_back([&] { tried.wait(); });
  } catch (const std::exception&) {  // of the system, or of memory
    can = false;
  }
  tried.count_down();
  return can;
}

}  // namespace

void start_worker_threads() {
  const int wanted = wanted_threads();
  if (wanted > kMost) fail_input("OMP_NUM_THREADS: {} threads are too many; {} are the most", wanted, kMost);
  if (!can_start(wanted)) {  // one more than OpenMP starts
    fail(ExitCode::out_of_resources,
         "{} threads cannot be started: set OMP_NUM_THREADS to fewer, or raise the limits on processes and on memory "
         "(ulimit -u, ulimit -v)",
         wanted);
  }
  std::atomic<int> started = 0;  // a region that does nothing would be left out by the compiler, and start nothing
#pragma omp parallel
  started.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace qshard::reference
