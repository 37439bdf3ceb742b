#include "core/training/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace qshard {

double LearningRateSchedule::at(std::int64_t step) const {
  if (scheduler == Scheduler::constant) return peak;
  const std::int64_t done = step - 1;
  if (done < warmup_steps) return peak * (static_cast<double>(done) / static_cast<double>(warmup_steps));
  const auto rest = static_cast<double>(std::max<std::int64_t>(1, total_steps - warmup_steps));
  const double progress = static_cast<double>(done - warmup_steps) / rest;
  switch (scheduler) {
    case Scheduler::linear:
      return peak * std::max(0.0, 1.0 - progress);
    case Scheduler::cosine:
      return peak * std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
    case Scheduler::constant:
    case Scheduler::constant_with_warmup:
      break;
  }
  return peak;
}

LearningRateSchedule learning_rate_schedule(const TrainingConfig& training, std::int64_t total_steps) {
  const double share = training.warmup_steps > 0 ? training.warmup_steps : training.warmup_ratio;
  const double steps =
      share < 1 || training.warmup_steps == 0 ? std::ceil(static_cast<double>(total_steps) * share) : share;
  const auto warmup = static_cast<std::int64_t>(steps);
  return {training.lr_scheduler_type, training.learning_rate, warmup, total_steps};
}

}  // namespace qshard
