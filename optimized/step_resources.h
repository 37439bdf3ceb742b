#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include <cuda_runtime_api.h>

#include "optimized/attention/attention.h"
#include "optimized/device/arena.h"
#include "optimized/linear4bit/linear4bit_plan.h"
#include "optimized/matmul.h"

namespace qshard::optimized {

/// The plans of the 4-bit products seen lately, the newest first; one thread at a time.
class Linear4bitPlans {
 public:
  explicit Linear4bitPlans(const OtherWork& other = {}) : other_(other) {}

  /// with_addends: as of Linear4bitPlan.
  const Linear4bitPlan& find(MatmulPlans& matmul, const Linear4bitShape& shape, std::int64_t rows,
                             Linear4bitDirection direction, bool with_addends = false);

 private:
  // Rows of changing lengths bring a new number of tokens with every batch: the oldest plans go.
  static constexpr std::size_t kMostPlans = 256;
  std::deque<Linear4bitPlan> plans_;
  OtherWork other_;
};

/// What every operation of a step works with. In a dry run (arena->dry_run()) plans and stream are null and nothing is
/// launched: only the arena is asked, so that its peak is that of the real step.
struct StepResources {
  Arena* arena = nullptr;
  MatmulPlans* matmul = nullptr;
  Linear4bitPlans* linear4bit = nullptr;
  cudaStream_t stream = nullptr;

  [[nodiscard]] bool dry_run() const { return arena->dry_run(); }

  /// Calls `operation`, which enqueues work, unless this is a dry run.
  template <typename Operation>
  void launch(const Operation& operation) const {
    if (!dry_run()) operation();
  }
};

}  // namespace qshard::optimized
