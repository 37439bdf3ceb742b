#pragma once

#include <array>

#include <cuda_runtime_api.h>

namespace qshard::optimized {

/// A stream of the highest priority for work beside that of a caller's stream, and the events that order the two. All
/// of it is work of the caller's stream: fork() lets it begin after what that stream holds, wait() makes that stream
/// wait for it. So it may be captured into a graph together with the caller's stream, if each mark() is waited for.
/// Belongs to the device that is current when it is made; one thread at a time, and during a capture for that alone.
class SideStream {
 public:
  static constexpr int kMarks = 16;

  SideStream();
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  [[nodiscard]] cudaStream_t stream() const { return stream_; }

  /// What is issued here from now on runs after all that `from` holds now.
  void fork(cudaStream_t from);

  /// Marks the end of what has been issued here so far; `mark` below kMarks.
  void mark(int mark);

  /// What is issued to `stream` from now on runs after the mark.
  void wait(int mark, cudaStream_t stream);

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t fork_ = nullptr;
  std::array<cudaEvent_t, kMarks> marks_{};
};

}  // namespace qshard::optimized
