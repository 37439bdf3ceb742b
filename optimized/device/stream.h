#pragma once

#include <cuda_runtime_api.h>

namespace qshard::optimized {

/// A stream of the current device that does not wait for the default stream.
class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  [[nodiscard]] cudaStream_t get() const { return stream_; }
  /// Waits until everything that was enqueued is done. Throws as check_cuda().
  void synchronize() const;

 private:
  cudaStream_t stream_ = nullptr;
};

/// A point in a stream that other streams may wait for; it carries no time. Needs no device until it is recorded.
class Event {
 public:
  Event() = default;
  ~Event();
  Event(Event&& other) noexcept;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  Event& operator=(Event&&) = delete;

  void record(cudaStream_t stream);
  /// `stream` goes on only when what was recorded last is done; at once where nothing was recorded.
  void hold_back(cudaStream_t stream) const;

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace qshard::optimized
