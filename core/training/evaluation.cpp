#include "core/training/evaluation.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/base/error.h"

namespace qshard {
namespace {

/// Rows [begin, begin + count) as far as there are such rows.
TokenBatch batch_of_rows(const PreparedDataset& dataset, std::int64_t begin, std::int64_t count) {
  std::vector<RowChoice> choices;
  for (std::int64_t i = begin; i < std::min(dataset.rows(), begin + count); ++i) {
    choices.push_back({i, static_cast<std::uint64_t>(i)});
  }
  return make_batch(dataset, choices);
}

}  // namespace

Evaluation evaluate_dataset(TrainingEngine& engine, const PreparedDataset& dataset, std::int64_t batch_rows,
                            Progress& progress, const std::function<bool()>& stop) {
  const auto start = std::chrono::steady_clock::now();
  LossSum total;
  for (std::int64_t row = 0; row < dataset.rows(); row += batch_rows * engine.world_size()) {
    if (stop && stop()) return {.stopped = true};
    std::vector<TokenBatch> batches;
    for (int i = 0; i < engine.local_ranks(); ++i) {
      batches.push_back(batch_of_rows(dataset, row + (engine.first_rank() + i) * batch_rows, batch_rows));
    }
    const LossSum part = engine.evaluate(batches);
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
