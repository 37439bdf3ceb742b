#include "core/training/training_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/stop_signal.h"
#include "core/training/batch_schedule.h"
#include "core/training/evaluation.h"
#include "core/training/learning_rate.h"
#include "core/training/training_checkpoint.h"
#include "core/training/whole_checkpoints.h"

namespace qshard {
namespace {

BatchSchedule make_schedule(const RunConfig& config, const PreparedDataset& train) {
  RowGroups groups = config.dataset.packing ? pack_rows(train, config.training.max_length) : single_rows(train.rows());
  return {std::move(groups),
          {.world_size = config.fsdp.world_size,
           .per_device_batch_size = config.training.per_device_train_batch_size,
           .accumulation_steps = config.training.gradient_accumulation_steps,
           .shuffle = config.dataset.shuffle,
           .seed = static_cast<std::uint64_t>(config.training.seed)}};
}

std::int64_t steps_of(const RunConfig& config, const BatchSchedule& schedule) {
  return config.training.max_steps > 0 ? config.training.max_steps
                                       : schedule.steps_in(config.training.num_train_epochs);
}

bool is_due(Interval interval, std::int64_t steps, std::int64_t step, std::int64_t steps_per_epoch) {
  if (interval == Interval::no) return false;
  return step % (interval == Interval::steps ? steps : steps_per_epoch) == 0;
}

std::string to_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Throws Error(bad_input) unless all processes take the same rows in each step.
void check_same_rows(RankLink* link, const RunIdentity& identity, std::int64_t total) {
  if (link == nullptr) return;
  TrainerState state;
  state.max_steps = total;
  state.identity = identity;
  const std::string mine = python_json(to_json(state));
  const auto all = link->all_gather(std::as_bytes(std::span(mine)));
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    const std::string other = to_text(all[rank]);
    if (other == mine) continue;
    fail_input("rank {} would take other rows than rank {}: {} against {}; give all hosts the same files and options",
               rank, link->rank(), other, mine);
  }
}

class TrainingLoop {
 public:
  explicit TrainingLoop(TrainingJob& job)
      : job_(job),
        writes_(job.engine.first_rank() == 0),
        training_(job.config.training),
        schedule_(make_schedule(job.config, job.train)),
        total_(steps_of(job.config, schedule_)),
        learning_rates_(learning_rate_schedule(training_, total_)) {}

  TrainingSummary run() {
    const StopSignal signal;
    start();
    if (writes_) metrics_.emplace(open_metrics());
    if (state_.global_step == 0) {
      evaluate("before training");
    } else {
      evaluate_where_due();  // a signal ended the run in that evaluation
    }
    while (state_.global_step < total_ && !stopped()) step();
    if (summary_.stopped_by != 0) return stop();
    if (training_.save_strategy != Interval::no && saved_step_ != state_.global_step) save();
    if (state_.last_eval_step != state_.global_step) evaluate("after training");
    if (summary_.stopped_by != 0) return stop();
    finish();
    summary_.loss_before = state_.first_eval_loss;
    summary_.loss_after = state_.last_eval_loss;
    return summarize();
  }

 private:
  void start() {
    state_.max_steps = total_;
    state_.identity = {job_.config.rows_per_step(),
                       training_.seed,
                       job_.config.dataset.shuffle,
                       job_.config.dataset.packing,
                       fmt::format("{:016x}", fingerprint(job_.train)),
                       job_.settings};
    check_same_rows(job_.link, state_.identity, total_);
    const auto& resume = job_.output.resume;
    std::optional<TrainerState> saved;
    if (resume) saved = resume->checkpoint.state;
    share_resume(saved);
    if (writes_ && saved) check_resume(resume->directory.string(), *saved);
    if (writes_) prepare_output();
    if (!saved) return;
    const TrainingCheckpoint elsewhere;
    const TrainingCheckpoint& checkpoint = writes_ ? resume->checkpoint : elsewhere;
    job_.engine.load_adapter(checkpoint.adapter);
    job_.engine.load_optimizer_state(checkpoint.optimizer);
    state_ = *saved;
    state_.max_steps = total_;
    if (writes_) last_checkpoint_ = resume->directory.string();
    if (writes_ && saved_step_ >= 0) keep_newest();  // the run may have been killed before it did
    job_.progress.print(fmt::format("Going on from {} (step {} of {})", last_checkpoint_, state_.global_step, total_));
  }

  /// Rank 0 knows whether the run goes on from a checkpoint, and whether that lies in the output directory itself,
  /// where the same step needs no second save; the others learn it here.
  void share_resume(std::optional<TrainerState>& saved) {
    std::string text;
    if (writes_ && saved) {
      if (std::filesystem::exists(checkpoint_path(job_.output.path, saved->global_step))) {
        saved_step_ = saved->global_step;
      }
      text = python_json(Json{{"saved_step", saved_step_}, {"state", to_json(*saved)}});
    }
    if (job_.link != nullptr) text = to_text(job_.link->broadcast(std::as_bytes(std::span(text)), 0));
    if (writes_ || text.empty()) return;
    const Json shared = parse_json(text, "rank 0");
    saved_step_ = shared["saved_step"].get<std::int64_t>();
    saved = parse_trainer_state(python_json(shared["state"]), "rank 0");
  }

  void check_resume(const std::string& directory, const TrainerState& saved) const {
    const std::vector<std::string> adjusted = check_same_run(saved.identity, state_.identity, directory);
    if (saved.global_step > total_) {
      fail_input("{}: is at step {}, beyond the {} steps asked for; raise training.max_steps", directory,
                 saved.global_step, total_);
    }
    for (const std::string& line : adjusted) job_.progress.print("note: " + line + " from here on");
    if (saved.max_steps != total_) {
      job_.progress.print(fmt::format("note: the run had {} steps and now has {}", saved.max_steps, total_));
    }
  }

  void prepare_output() const {
    const std::size_t told = job_.output.notes.size();
    remove_earlier_run(job_.output);
    for (std::size_t i = told; i < job_.output.notes.size(); ++i) job_.progress.print(job_.output.notes[i]);
  }

  /// True on all processes once a signal has come to one of them.
  bool stopped() {
    if (summary_.stopped_by != 0) return true;
    const int mine = StopSignal::received();
    summary_.stopped_by = mine;
    if (job_.link != nullptr) {
      for (const auto& other : job_.link->all_gather(std::as_bytes(std::span(&mine, 1)))) {
        int signal = 0;
        std::memcpy(&signal, other.data(), std::min(sizeof(signal), other.size()));
        summary_.stopped_by = std::max(summary_.stopped_by, signal);
      }
    }
    return summary_.stopped_by != 0;
  }

  /// Ends the run here, with all that the next one needs to go on.
  TrainingSummary stop() {
    const bool is_new = state_.global_step > 0 && saved_step_ != state_.global_step;
    if (training_.save_strategy != Interval::no && is_new) save();
    if (job_.link != nullptr) job_.link->barrier();  // a rank that leaves early would end the one that still saves
    return summarize();
  }

  TrainingSummary summarize() {
    summary_.steps = state_.global_step;
    summary_.last_checkpoint = last_checkpoint_;
    return summary_;
  }

  void begin(std::string_view activity) const {
    if (job_.link != nullptr) job_.link->set_activity(activity);
  }

  [[nodiscard]] MetricsFile open_metrics() const {
    const std::filesystem::path path = job_.output.path / "metrics.jsonl";
    if (job_.output.resume) {
      cut_back_metrics(path, state_.global_step, state_.last_eval_step);
    } else {
      const auto aside = set_aside_metrics(path);
      if (aside) job_.progress.print(fmt::format("The metrics of an earlier run are now in {}", aside->string()));
    }
    return {path, job_.context};
  }

  void step() {
    const std::int64_t step = state_.global_step + 1;
    const double learning_rate = learning_rates_.at(step);
    begin(fmt::format("step {}", step));
    const auto start = std::chrono::steady_clock::now();
    const StepResult result = job_.engine.train_step(batches(step), learning_rate, step);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    check_finite(result, step);

    state_.global_step = step;
    state_.epoch = schedule_.epochs_after(step);
    state_.num_input_tokens_seen += result.tokens;
    summary_.train_seconds += seconds;
    summary_.tokens += result.tokens;
    ++steps_here_;
    record({.step = step,
            .epoch = state_.epoch,
            .loss = result.loss,
            .learning_rate = learning_rate,
            .grad_norm = result.grad_norm,
            .num_tokens = state_.num_input_tokens_seen,
            .step_seconds = seconds,
            .tokens_per_second = static_cast<double>(result.tokens) / seconds,
            .peak_memory_bytes = job_.engine.peak_bytes_by_rank()});
    evaluate_where_due();
    if (summary_.stopped_by == 0 &&
        is_due(training_.save_strategy, training_.save_steps, step, schedule_.steps_per_epoch()))
      save();
  }

  std::vector<std::vector<TokenBatch>> batches(std::int64_t step) {
    std::vector<std::vector<TokenBatch>> micro_batches;
    for (const auto& ranks : schedule_.rows_of_step(step)) {
      auto& batch = micro_batches.emplace_back();
      for (int i = 0; i < job_.engine.local_ranks(); ++i) {
        batch.push_back(make_batch(job_.train, ranks[static_cast<std::size_t>(job_.engine.first_rank() + i)]));
      }
    }
    return micro_batches;
  }

  void check_finite(const StepResult& result, std::int64_t step) const {
    if (std::isfinite(result.loss) && std::isfinite(result.grad_norm)) return;
    const std::string checkpoint =
        last_checkpoint_.empty() ? "there is no checkpoint yet" : "the last good checkpoint is " + last_checkpoint_;
    fail(ExitCode::check_failed,
         "step {}: the loss is {} and the gradient norm {}; nothing was updated or saved, {}. A lower "
         "training.learning_rate, a longer warm-up or a wider compute dtype may help",
         step, result.loss, result.grad_norm, checkpoint);
  }

  void record(const StepMetrics& metrics) {
    if (metrics_) metrics_->add(to_json(metrics));
    const bool is_logged = metrics.step % training_.logging_steps == 0;
    if (is_logged) {
      state_.log_history.push_back({{"step", metrics.step},
                                    {"epoch", metrics.epoch},
                                    {"loss", metrics.loss},
                                    {"learning_rate", metrics.learning_rate},
                                    {"grad_norm", metrics.grad_norm}});
    }
    const double per_step = summary_.train_seconds / static_cast<double>(steps_here_);
    const std::string line =
        fmt::format("step {}/{}  loss {:.4f}  lr {:.3g}  grad norm {:.3f}  {:.0f} tokens/s  {} left", metrics.step,
                    total_, metrics.loss, metrics.learning_rate, metrics.grad_norm,
                    static_cast<double>(summary_.tokens) / summary_.train_seconds,
                    format_duration(per_step * static_cast<double>(total_ - metrics.step)));
    job_.progress.show(line);
    if (!job_.progress.live() && (is_logged || metrics.step == 1 || metrics.step == total_)) job_.progress.print(line);
  }

  void evaluate_where_due() {
    if (state_.last_eval_step == state_.global_step) return;
    if (!is_due(training_.eval_strategy, training_.eval_steps, state_.global_step, schedule_.steps_per_epoch())) return;
    evaluate(fmt::format("at step {}", state_.global_step));
  }

  void evaluate(std::string_view when) {
    if (job_.eval == nullptr) return;
    begin(fmt::format("the evaluation {}", when));
    const Evaluation result = evaluate_dataset(job_.engine, *job_.eval, training_.per_device_eval_batch_size,
                                               job_.progress, [this] { return stopped(); });
    if (result.stopped) return;
    state_.last_eval_step = state_.global_step;
    if (state_.global_step == 0) state_.first_eval_loss = result.loss;
    state_.last_eval_loss = result.loss;
    if (metrics_) {
      metrics_->add(to_json(EvaluationMetrics{state_.global_step, result.loss, result.loss_tokens, result.seconds}));
    }
    state_.log_history.push_back({{"step", state_.global_step}, {"epoch", state_.epoch}, {"eval_loss", result.loss}});
    job_.progress.print(fmt::format("Evaluation {}: loss {:.4f}, perplexity {:.3f} ({} tokens, {})", when, result.loss,
                                    std::exp(result.loss), result.loss_tokens, format_duration(result.seconds)));
  }

  void save() {
    begin(fmt::format("the save of step {}", state_.global_step));
    save_checkpoint(job_.output.path, state_, job_.engine, job_.save_adapter);
    saved_step_ = state_.global_step;
    last_checkpoint_ = checkpoint_path(job_.output.path, saved_step_).string();
    if (writes_) keep_newest();
  }

  void keep_newest() { remove_old_checkpoints(job_.output.path, saved_step_, training_.save_total_limit, whole_); }

  void finish() {
    begin("the end of the run");
    const NamedTensors adapter = job_.engine.adapter();
    if (!writes_) return;
    job_.save_adapter(job_.output.path, adapter);
    write_file(job_.output.path / "trainer_state.json", python_json(to_json(state_), 2) + "\n");
  }

  TrainingJob& job_;
  bool writes_;  // this process holds rank 0
  const TrainingConfig& training_;
  BatchSchedule schedule_;
  std::int64_t total_;
  LearningRateSchedule learning_rates_;
  TrainerState state_;
  TrainingSummary summary_;
  std::optional<MetricsFile> metrics_;  // where writes_
  std::int64_t steps_here_ = 0;
  std::int64_t saved_step_ = -1;
  std::string last_checkpoint_;
  WholeCheckpoints whole_;
};

}  // namespace

TrainingSummary run_training(TrainingJob& job) {
  return TrainingLoop(job).run();
}

std::int64_t total_steps(const RunConfig& config, const PreparedDataset& train) {
  return steps_of(config, make_schedule(config, train));
}

}  // namespace qshard
