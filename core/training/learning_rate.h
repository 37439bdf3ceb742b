#pragma once

#include <cstdint>

#include "core/run/run_config.h"

namespace qshard {

/// A learning rate over the run, as transformers' get_scheduler computes it.
struct LearningRateSchedule {
  Scheduler scheduler = Scheduler::constant;
  double peak = 0;
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 1;

  /// The rate of optimizer step `step` (from 1). With s = step - 1, W warm-up and T total steps: peak * s / W while
  /// s < W (the first step's rate is 0; `constant` has no warm-up); then, with p = (s - W) / max(1, T - W): peak
  /// (constant), peak * (1 - p) (linear), peak * (1 + cos(pi * p)) / 2 (cosine), not below 0.
  [[nodiscard]] double at(std::int64_t step) const;
};

/// The configuration's schedule. warmup_steps of 1 or more are steps; below 1 they are a share, as warmup_ratio is
/// where warmup_steps is 0: ceil(total_steps * share).
LearningRateSchedule learning_rate_schedule(const TrainingConfig& training, std::int64_t total_steps);

}  // namespace qshard
