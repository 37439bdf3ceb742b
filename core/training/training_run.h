#pragma once

#include <optional>

#include "core/base/progress.h"
#include "core/launch/rank_link.h"
#include "core/run/run_config.h"
#include "core/training/metrics.h"
#include "core/training/output_directory.h"
#include "core/training/prepared_dataset.h"
#include "core/training/training_engine.h"

namespace qshard {

/// A training run: everything but the arithmetic. The referenced objects must outlive it. With several processes each
/// has a job of its own; files are opened and written by the one that holds rank 0, whose `output` alone counts.
struct TrainingJob {
  const RunConfig& config;
  TrainingEngine& engine;
  const PreparedDataset& train;
  const PreparedDataset* eval = nullptr;  // null: nothing is evaluated
  OutputDirectory& output;
  SaveAdapter save_adapter;
  Progress& progress;
  RunContext context;
  RankLink* link = nullptr;  // to the other processes; nullptr: there is one
  RunSettings settings{};    // kept in checkpoints, and compared when a run goes on
};

struct TrainingSummary {
  std::int64_t steps = 0;             // of the whole run
  std::optional<double> loss_before;  // evaluation loss
  std::optional<double> loss_after;
  double train_seconds = 0;               // of this process's optimizer steps
  std::int64_t tokens = 0;                // of this process's optimizer steps
  int stopped_by = 0;                     // the signal that ended the run before its last step, or 0
  std::filesystem::path last_checkpoint;  // empty: none was saved
};

/// Runs the optimizer steps of the configuration, from the beginning or from output.resume: evaluates before and after
/// (and in between, where asked for), writes metrics.jsonl, checkpoints, and at the end the adapter and
/// trainer_state.json into the output directory. A resumed run's files are to the bit those of an uninterrupted one,
/// but for times; metrics.jsonl keeps the context that it began with. Throws Error(check_failed) naming the step and
/// the last checkpoint when the loss or the gradient norm is not finite; nothing of that step is saved. Throws
/// Error(bad_input) where the checkpoint belongs to another run, or where two processes have other rows or options; the
/// output directory is then as it was. Ctrl-C or SIGTERM on any process (core/base/stop_signal.h) ends the run on all
/// of them after the step, or the batch of an evaluation, that is being computed, with a checkpoint of the last step
/// unless save_strategy is no. Collective.
TrainingSummary run_training(TrainingJob& job);

/// Steps of the run: max_steps, or num_train_epochs over `train`.
std::int64_t total_steps(const RunConfig& config, const PreparedDataset& train);

}  // namespace qshard
