#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/base/progress.h"
#include "core/training/prepared_dataset.h"
#include "core/training/training_engine.h"

namespace qshard {

struct Evaluation {
  double loss = 0;  // mean over the unmasked tokens of the whole data set
  std::int64_t loss_tokens = 0;
  double seconds = 0;
  bool stopped = false;  // before the end, as `stop` asked for: the numbers above mean nothing
};

/// Evaluates every row once, each rank `batch_rows` at a time, in file order. The sum is kept in double. Collective,
/// with the same data set on all processes. `stop`, where given, is asked before each batch and answers the same on all
/// processes. Throws Error(check_failed) where the loss is not finite.
Evaluation evaluate_dataset(TrainingEngine& engine, const PreparedDataset& dataset, std::int64_t batch_rows,
                            Progress& progress, const std::function<bool()>& stop = {});

}  // namespace qshard
