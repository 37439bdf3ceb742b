#pragma once

namespace qshard {

/// A named part of this thread's time, from construction to destruction, for NVIDIA's profilers and whatever else
/// listens to NVTX (NVTX_INJECTION64_PATH names such a library). Ranges nest. Costs nanoseconds where nobody listens;
/// without a CUDA toolkit at build time nothing is marked.
class TraceRange {
 public:
  /// `name` is copied where somebody listens.
  explicit TraceRange(const char* name);
  ~TraceRange();
  TraceRange(const TraceRange&) = delete;
  TraceRange& operator=(const TraceRange&) = delete;
};

}  // namespace qshard
