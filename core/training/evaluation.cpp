#include "core/training/evaluation.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/base/error.h"

namespace qshard {

Evaluation evaluate_dataset(TrainingEngine& engine, const PreparedDataset& dataset, std::int64_t batch_rows,
                            Progress& progress) {
  const auto start = std::chrono::steady_clock::now();
  LossSum total;
  for (std::int64_t row = 0; row < dataset.rows(); row += batch_rows) {
    std::vector<RowChoice> choices;
    for (std::int64_t i = row; i < std::min(dataset.rows(), row + batch_rows); ++i) {
      choices.push_back({i, static_cast<std::uint64_t>(i)});
    }
    const LossSum part = engine.evaluate(make_batch(dataset, choices));
    total.sum += part.sum;
    total.loss_tokens += part.loss_tokens;
    progress.show(fmt::format("evaluating: row {} of {}", row, dataset.rows()));
  }
  const double loss = total.sum / static_cast<double>(total.loss_tokens);
  if (!std::isfinite(loss)) {
    fail(ExitCode::check_failed, "the evaluation loss is {}: the weights or the adapter are damaged", loss);
  }
  return {loss, total.loss_tokens, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()};
}

}  // namespace qshard
