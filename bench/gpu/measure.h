#pragma once

#include <functional>
#include <vector>

#include <cuda_runtime_api.h>

#include "bench/gpu/clocks.h"

namespace qshard::bench {

/// One measurement of a call among others.
struct Sample {
  double seconds = 0;  // of one call
  int calls = 0;
  ClockSample clocks;            // while the calls ran
  bool enqueue_limited = false;  // the host enqueued slower than the GPU worked: the time may be the host's
  double joules = 0;             // of one call and the whole GPU, where it was sustained; 0: not known
};

/// Time of one call among `calls` back to back, from events on `stream`. A kernel that only waits holds the stream
/// while the host enqueues, so that launch latency is hidden as in a running model. call(i) enqueues the i-th; rotating
/// among buffers is its business. Throws Error(check_failed) where work went on after the stream was done: a call that
/// uses another stream would otherwise look fast.
Sample time_calls(int calls, cudaStream_t stream, const Clocks& clocks, const std::function<void(int)>& call);

/// Time of one call after calls have gone on for `seconds`, over as long again: at the clock, and with the energy, of
/// long work. `calls` are enqueued at a time, while those before them run; the clock is the mean.
Sample time_sustained(double seconds, int calls, cudaStream_t stream, const Clocks& clocks,
                      const std::function<void(int)>& call);

/// How many calls of `seconds_per_call` make a batch of `batch_seconds`: a multiple of `copies`, no more than the
/// launch queue holds.
int calls_of_batch(double batch_seconds, double seconds_per_call, int copies);

/// The middle one, or the mean of the two in the middle; NaN where there is none.
double median(std::vector<double> values);

}  // namespace qshard::bench
