#pragma once

#include <cstddef>
#include <cstdint>

#include "core/training/batch_bound.h"
#include "core/training/token_batch.h"
#include "optimized/device/arena.h"
#include "optimized/device/stream.h"
#include "optimized/token_rows.h"

namespace qshard::optimized {

/// A batch in device memory: its rows, and the factor of its gradients. One copy from pinned memory a batch; the host
/// goes on at once and waits only where the copy before the last has not been made yet.
class DeviceBatch {
 public:
  DeviceBatch(const BatchBound& bound, Arena& arena);
  ~DeviceBatch();
  DeviceBatch(const DeviceBatch&) = delete;
  DeviceBatch& operator=(const DeviceBatch&) = delete;

  /// Enqueues the copy. In a dry run only the sizes are taken over. Throws Error(bad_input) where the batch is larger
  /// than the bound.
  void upload(const TokenBatch& batch, float gradient_scale, cudaStream_t stream);

  [[nodiscard]] const TokenRows& rows() const { return rows_; }
  /// One float in device memory.
  [[nodiscard]] const float* gradient_scale() const { return scale_; }

 private:
  struct Staging {
    std::byte* memory = nullptr;
    cudaEvent_t copied = nullptr;
  };

  BatchBound bound_;
  Arena::Piece memory_;
  Staging staging_[2];
  int next_ = 0;
  TokenRows rows_;
  const float* scale_ = nullptr;
};

}  // namespace qshard::optimized
