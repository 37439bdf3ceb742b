#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>

#include "bench/gpu/measure.h"
#include "optimized/device/cuda_check.h"

namespace qshard::bench {
namespace {

/// Waits so many nanoseconds; the timer's steps are at most a few microseconds.
__global__ void hold_kernel(unsigned long long nanoseconds) {
  unsigned long long start = 0;
  unsigned long long now = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  do {
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  } while (now - start < nanoseconds);
}

struct Event {
  cudaEvent_t event{};
  Event() { QSHARD_CUDA_CHECK(cudaEventCreate(&event)); }
  ~Event() { cudaEventDestroy(event); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// time_calls() once; after: seconds for which other work went on.
Sample time_once(int calls, cudaStream_t stream, const Clocks& clocks, const std::function<void(int)>& call,
                 double& after) {
  const Event start;
  const Event stop;
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  const auto hold = static_cast<unsigned long long>(std::clamp(6000 * calls, 20'000, 4'000'000));
  hold_kernel<<<1, 1, 0, stream>>>(hold);
  QSHARD_CUDA_CHECK(cudaGetLastError());
  QSHARD_CUDA_CHECK(cudaEventRecord(start.event, stream));
  const auto enqueuing = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) call(i);
  const double enqueue_seconds = seconds_since(enqueuing);
  QSHARD_CUDA_CHECK(cudaEventRecord(stop.event, stream));
  Sample sample;
  sample.clocks = clocks.sample();
  QSHARD_CUDA_CHECK(cudaEventSynchronize(stop.event));
  const auto done = std::chrono::steady_clock::now();
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  after = seconds_since(done);
  float milliseconds = 0;
  QSHARD_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start.event, stop.event));
  const double measured = static_cast<double>(milliseconds) * 1e-3;
  sample.calls = calls;
  sample.seconds = measured / calls;
  // Work that is still running when its successor arrives keeps the stream busy as well as the hold does.
  sample.enqueue_limited = enqueue_seconds > 1e-9 * static_cast<double>(hold) && enqueue_seconds > 0.9 * measured;
  return sample;
}

/// Calls that go on for a while: a batch is enqueued while the one before it runs, then between() is called. Returns
/// how many calls there were.
int call_for(double seconds, int calls, cudaStream_t stream, const std::function<void(int)>& call,
             const std::function<void()>& between) {
  const Event batches[2];
  const auto start = std::chrono::steady_clock::now();
  int done = 0;
  for (int batch = 0; batch < 2 || seconds_since(start) < seconds; ++batch) {
    if (batch >= 2) QSHARD_CUDA_CHECK(cudaEventSynchronize(batches[batch % 2].event));
    for (int i = 0; i < calls; ++i) call(i);
    QSHARD_CUDA_CHECK(cudaEventRecord(batches[batch % 2].event, stream));
    done += calls;
    between();
  }
  return done;
}

}  // namespace

Sample time_sustained(double seconds, int calls, cudaStream_t stream, const Clocks& clocks,
                      const std::function<void(int)>& call) {
  call_for(seconds, calls, stream, call, [] {});
  const Event start;
  const Event stop;
  Sample sample;
  double megahertz = 0;
  int samples = 0;
  const double joules = clocks.joules();
  QSHARD_CUDA_CHECK(cudaEventRecord(start.event, stream));
  sample.calls = call_for(seconds, calls, stream, call, [&] {
    sample.clocks = clocks.sample();
    megahertz += sample.clocks.sm_mhz;
    ++samples;
  });
  QSHARD_CUDA_CHECK(cudaEventRecord(stop.event, stream));
  QSHARD_CUDA_CHECK(cudaEventSynchronize(stop.event));
  float milliseconds = 0;
  QSHARD_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start.event, stop.event));
  sample.seconds = static_cast<double>(milliseconds) * 1e-3 / sample.calls;
  sample.joules = (clocks.joules() - joules) / sample.calls;
  sample.clocks.sm_mhz = static_cast<unsigned>(megahertz / samples);
  return sample;
}

Sample time_calls(int calls, cudaStream_t stream, const Clocks& clocks, const std::function<void(int)>& call) {
  constexpr int kTries = 3;  // the host may be held up between its two waits, but hardly ever so often
  for (int i = 0; i < kTries; ++i) {
    double after = 0;
    const Sample sample = time_once(calls, stream, clocks, call, after);
    if (after <= std::max(200e-6, 0.1 * calls * sample.seconds)) return sample;
  }
  throw std::runtime_error("work went on after the stream was done: the calls use another stream");
}

int calls_of_batch(double batch_seconds, double seconds_per_call, int copies) {
  constexpr int kMostCalls = 800;  // fewer than the launch queue holds
  const int calls =
      std::clamp(static_cast<int>(batch_seconds / seconds_per_call) + 1, copies, std::max(copies, kMostCalls));
  return (calls + copies - 1) / copies * copies;
}

double median(std::vector<double> values) {
  if (values.empty()) return std::nan("");
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

}  // namespace qshard::bench
