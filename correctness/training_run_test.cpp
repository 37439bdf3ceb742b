#include "core/training/training_run.h"

#include <csignal>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/formats/safetensors.h"
#include "correctness/fake_engine.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

PreparedDataset make_rows(std::int64_t rows) {
  PreparedDataset dataset;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int32_t t = 0; t < 3 + static_cast<std::int32_t>(row % 4); ++t) {
      dataset.input_ids.push_back(static_cast<std::int32_t>(row) * 7 + t);
      dataset.labels.push_back(t < 2 ? kIgnoredLabel : t);
    }
    dataset.offsets.push_back(dataset.tokens());
  }
  return dataset;
}

void save_values(const fs::path& directory, const NamedTensors& adapter) {
  write_safetensors(directory / "adapter_model.safetensors", {{"values", adapter.at("values").view()}});
}

class TrainingRun : public testing::Test {
 protected:
  TrainingRun() {
    config_.training.output_dir = (directory_ / "out").string();
    config_.training.per_device_train_batch_size = 4;
    config_.training.learning_rate = 0.1;
    config_.training.max_steps = 12;
    config_.training.save_steps = 5;
    config_.training.lr_scheduler_type = Scheduler::cosine;
  }

  TrainingSummary run(const RunConfig& config, std::int64_t nan_step = -1) {
    OutputDirectory output = open_output_directory(config.training);
    notes_ = output.notes;
    FakeEngine engine;
    engine.nan_step = nan_step;
    engine.signal_step = signal_step_;
    engine.signal_evaluation = signal_evaluation_;
    Progress progress(sink_);
    TrainingJob job{config, engine, train_, &eval_, output, save_values, progress, context_, nullptr, settings_};
    const TrainingSummary summary = run_training(job);
    notes_ = output.notes;
    return summary;
  }

  RunConfig resuming() const {
    RunConfig config = config_;
    config.training.resume_from_checkpoint = "true";
    return config;
  }

  std::string message_of(const RunConfig& config, ExitCode code, std::int64_t nan_step = -1) {
    try {
      run(config, nan_step);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      return error.what();
    }
    return "no error";
  }

  [[nodiscard]] fs::path out(std::string_view name) const { return directory_ / "out" / name; }

  [[nodiscard]] std::vector<Json> lines() const {
    std::ifstream file(out("metrics.jsonl"));
    std::vector<Json> rows;
    for (std::string line; std::getline(file, line);) rows.push_back(Json::parse(line));
    return rows;
  }

  /// The rows of metrics.jsonl after its context, without what a clock decides.
  [[nodiscard]] std::vector<Json> metrics() const {
    std::vector<Json> rows = lines();
    rows.erase(rows.begin());
    for (Json& row : rows) {
      for (const auto* key : {"step_seconds", "tokens_per_second", "eval_seconds"}) row.erase(key);
    }
    return rows;
  }

  TemporaryDirectory directory_;
  RunConfig config_;
  RunContext context_{"qshard train a.yaml", "1.2.3", "", "a processor", "bfloat16", 7, 2, "2026-11-22T10:00:00+00:00"};
  PreparedDataset train_ = make_rows(30);
  PreparedDataset eval_ = make_rows(5);
  RunSettings settings_;
  std::int64_t signal_step_ = -1;
  std::int64_t signal_evaluation_ = -1;
  std::vector<std::string> notes_;
  std::FILE* sink_ = std::fopen("/dev/null", "w");

  void TearDown() override { std::fclose(sink_); }
};

TEST_F(TrainingRun, WritesEverythingItPromises) {
  const TrainingSummary summary = run(config_);
  EXPECT_EQ(summary.steps, 12);
  EXPECT_EQ(summary.loss_before, 1.0);  // the fake's loss at zero
  ASSERT_TRUE(summary.loss_after.has_value());
  EXPECT_NE(summary.loss_after, summary.loss_before);
  for (const auto* name : {"adapter_model.safetensors", "trainer_state.json", "checkpoint-5/optimizer.safetensors",
                           "checkpoint-10/trainer_state.json", "checkpoint-12/adapter_model.safetensors"}) {
    EXPECT_TRUE(fs::exists(out(name))) << name;
  }
  const auto rows = metrics();
  ASSERT_EQ(rows.size(), 14U);
  EXPECT_EQ(rows.front()["eval_loss"], 1.0);
  EXPECT_EQ(rows[1]["step"], 1);
  EXPECT_EQ(rows[1]["learning_rate"], 0.1);
  EXPECT_EQ(rows[12]["step"], 12);
  EXPECT_EQ(rows.back()["eval_loss"], *summary.loss_after);
  EXPECT_EQ(total_steps(config_, train_), 12);
}

TEST_F(TrainingRun, ResumesToTheBitFromEveryCheckpoint) {
  config_.training.save_steps = 1;
  run(config_);
  const auto metrics_before = metrics();
  const std::string adapter = read_file(out("adapter_model.safetensors"));
  const std::string state = read_file(out("trainer_state.json"));
  for (std::int64_t step = 11; step >= 0; --step) {
    fs::remove_all(checkpoint_path(directory_ / "out", step + 1));  // killed after saving `step`
    for (const auto* name : {"adapter_model.safetensors", "trainer_state.json"}) fs::remove(out(name));
    run(resuming());
    EXPECT_EQ(read_file(out("adapter_model.safetensors")), adapter) << step;
    EXPECT_EQ(read_file(out("trainer_state.json")), state) << step;
    EXPECT_EQ(metrics(), metrics_before) << step;
    for (std::int64_t later = 12; later > step; --later) fs::remove_all(checkpoint_path(directory_ / "out", later));
  }
}

TEST_F(TrainingRun, ResumingAFinishedRunChangesNothing) {
  run(config_);
  const auto before = metrics();
  const std::string state = read_file(out("trainer_state.json"));
  EXPECT_TRUE(run(resuming()).loss_after.has_value());
  EXPECT_EQ(metrics(), before);
  EXPECT_EQ(read_file(out("trainer_state.json")), state);
}

TEST_F(TrainingRun, MetricsBeginWithTheContext) {
  context_.source_hash = "0123abcd";
  run(config_);
  EXPECT_EQ(lines().front(), Json::parse(R"({"context": {"command": "qshard train a.yaml", "version": "1.2.3",
      "source_hash": "0123abcd", "device": "a processor", "dtype": "bfloat16", "seed": 7, "world_size": 2,
      "date": "2026-11-22T10:00:00+00:00"}})"));
}

TEST_F(TrainingRun, AResumedRunKeepsTheContextItBeganWith) {
  run(config_);
  const auto before = metrics();
  fs::remove_all(out("checkpoint-12"));
  context_.date = "2026-11-23T10:00:00+00:00";
  run(resuming());
  EXPECT_EQ(lines().front()["context"]["date"], "2026-11-22T10:00:00+00:00");
  EXPECT_EQ(metrics(), before);
  for (const Json& row : metrics()) EXPECT_FALSE(row.contains("context"));
}

TEST_F(TrainingRun, MetricsWithoutAContextAreResumedAsTheyAre) {
  run(config_);
  const auto before = metrics();
  const std::string text = read_file(out("metrics.jsonl"));
  write_file(out("metrics.jsonl"), text.substr(text.find('\n') + 1));
  run(resuming());
  ASSERT_EQ(lines().size(), before.size());
  EXPECT_TRUE(lines().front().contains("eval_loss"));
}

TEST_F(TrainingRun, ARunThatStartsOverHasItsOwnContext) {
  config_.training.save_strategy = Interval::no;
  run(config_);
  context_.seed = 8;
  config_.training.overwrite_output_dir = true;
  run(resuming());
  EXPECT_EQ(lines().front()["context"]["seed"], 8);
  EXPECT_EQ(metrics().size(), 14U);
}

TEST_F(TrainingRun, MetricsOfARunEndedBeforeItsFirstCheckpointArePutAside) {
  EXPECT_THAT(message_of(config_, ExitCode::check_failed, 4), HasSubstr("step 4"));
  const std::string before = read_file(out("metrics.jsonl"));
  run(resuming());
  EXPECT_EQ(read_file(out("metrics-1.jsonl")), before);
  EXPECT_EQ(metrics().size(), 14U);
}

TEST_F(TrainingRun, ResultsWithoutACheckpointToGoOnFromStay) {
  run(config_);
  for (const fs::path& checkpoint : list_checkpoints(directory_ / "out")) {
    fs::resize_file(checkpoint / "optimizer.safetensors", 9);
  }
  const std::string adapter = read_file(out("adapter_model.safetensors"));
  EXPECT_THAT(message_of(resuming(), ExitCode::bad_input), HasSubstr("overwrite_output_dir"));
  EXPECT_EQ(read_file(out("adapter_model.safetensors")), adapter);
  EXPECT_EQ(list_checkpoints(directory_ / "out").size(), 3U);
  for (const fs::path& checkpoint : list_checkpoints(directory_ / "out")) fs::remove_all(checkpoint);
  EXPECT_THAT(message_of(resuming(), ExitCode::bad_input), HasSubstr("adapter_model.safetensors"));
  config_.training.overwrite_output_dir = true;
  EXPECT_EQ(run(resuming()).steps, 12);
}

TEST_F(TrainingRun, AMistakeCostsNoEarlierRun) {
  run(config_);
  config_.training.overwrite_output_dir = true;
  RunConfig mistaken = config_;
  mistaken.training.resume_from_checkpoint = out("checkpoint-5").string();
  mistaken.training.seed = 3;
  EXPECT_THAT(message_of(mistaken, ExitCode::bad_input), HasSubstr("training.seed"));
  EXPECT_EQ(list_checkpoints(directory_ / "out").size(), 3U);
  open_output_directory(config_.training);  // the model could not be loaded, say
  EXPECT_TRUE(fs::exists(out("adapter_model.safetensors")));
}

TEST_F(TrainingRun, EveryChangedByteOfACheckpointIsNoticed) {
  run(config_);
  const fs::path checkpoint = out("checkpoint-12");
  for (const auto& entry : fs::directory_iterator(checkpoint)) {
    const std::string good = read_file(entry.path());
    for (std::size_t i = 0; i < good.size(); ++i) {
      std::string damaged = good;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << i % 8));
      std::ofstream(entry.path(), std::ios::binary) << damaged;
      EXPECT_THROW(read_checkpoint(checkpoint), Error) << entry.path() << " at " << i;
      EXPECT_FALSE(is_whole(checkpoint));
    }
    std::ofstream(entry.path(), std::ios::binary) << good;
  }
  EXPECT_TRUE(is_whole(checkpoint));
  EXPECT_NO_THROW(read_checkpoint(checkpoint));
}

TEST_F(TrainingRun, FilesAndDirectoriesOfAnotherStepAreNoticed) {
  run(config_);
  const auto overwrite = fs::copy_options::overwrite_existing;
  fs::copy_file(out("checkpoint-5/optimizer.safetensors"), out("checkpoint-12/optimizer.safetensors"), overwrite);
  EXPECT_THROW(read_checkpoint(out("checkpoint-12")), Error);
  fs::rename(out("checkpoint-10"), out("checkpoint-11"));
  try {
    read_checkpoint(out("checkpoint-11"));
    FAIL() << "a checkpoint under another step's name is read";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("is of step 10"));
  }
}

TEST_F(TrainingRun, ADamagedCheckpointCountsForNoLimit) {
  run(config_);
  fs::resize_file(out("checkpoint-12/optimizer.safetensors"), 9);
  RunConfig shorter = resuming();
  shorter.training.max_steps = 11;
  shorter.training.save_steps = 1;
  shorter.training.save_total_limit = 1;
  run(shorter);
  EXPECT_TRUE(is_whole(out("checkpoint-11")));
  EXPECT_FALSE(fs::exists(out("checkpoint-10")));
}

TEST_F(TrainingRun, AnOldDamagedCheckpointCountsForNoLimit) {
  config_.training.save_steps = 2;
  config_.training.max_steps = 10;
  run(config_);
  fs::resize_file(out("checkpoint-8/optimizer.safetensors"), 9);
  config_.training.max_steps = 12;
  config_.training.save_total_limit = 3;
  run(resuming());
  for (const auto* name : {"checkpoint-12", "checkpoint-10", "checkpoint-6"}) EXPECT_TRUE(is_whole(out(name))) << name;
  EXPECT_FALSE(fs::exists(out("checkpoint-4")));
}

TEST_F(TrainingRun, OtherSettingsAreRefusedAndAnotherScheduleIsNot) {
  settings_.fixed = {{"base_weights", "0123"}, {"lora.r", 8}};
  settings_.adjustable = {{"training.learning_rate", "0.1"}};
  run(config_);
  fs::remove_all(out("checkpoint-12"));
  settings_.adjustable["training.learning_rate"] = "0.2";
  EXPECT_EQ(run(resuming()).steps, 12);
  fs::remove_all(out("checkpoint-12"));
  settings_.fixed["lora.r"] = 16;
  EXPECT_THAT(message_of(resuming(), ExitCode::bad_input), HasSubstr("lora.r was 8 and is now 16"));
  settings_.fixed["lora.r"] = 8;
  settings_.fixed["base_weights"] = "4567";
  EXPECT_THAT(message_of(resuming(), ExitCode::bad_input),
              HasSubstr("the hash of the weights in model_name_or_path was 0123 and is now 4567"));
  settings_.fixed["base_weights"] = "0123";
  settings_.fixed["lora.use_dora"] = true;
  EXPECT_THAT(message_of(resuming(), ExitCode::bad_input), HasSubstr("lora.use_dora was not given and is now true"));
  EXPECT_TRUE(fs::exists(out("checkpoint-10")));
}

TEST_F(TrainingRun, ASignalEndsTheRunAfterItsStepWithACheckpoint) {
  run(config_);
  const auto whole = metrics();
  const std::string adapter = read_file(out("adapter_model.safetensors"));
  config_.training.output_dir = (directory_ / "stopped").string();
  signal_step_ = 7;
  const TrainingSummary summary = run(config_);
  EXPECT_EQ(summary.stopped_by, SIGTERM);
  EXPECT_EQ(summary.steps, 7);
  EXPECT_EQ(summary.last_checkpoint, directory_ / "stopped/checkpoint-7");
  EXPECT_FALSE(fs::exists(directory_ / "stopped/adapter_model.safetensors"));
  signal_step_ = -1;
  EXPECT_EQ(run(resuming()).stopped_by, 0);
  EXPECT_EQ(read_file(directory_ / "stopped/adapter_model.safetensors"), adapter);
  fs::rename(directory_ / "stopped/metrics.jsonl", out("metrics.jsonl"));
  EXPECT_EQ(metrics(), whole);
}

TEST_F(TrainingRun, ASignalDuringAnEvaluationLosesNothingOfIt) {
  config_.training.eval_strategy = Interval::steps;
  config_.training.eval_steps = 4;
  config_.training.per_device_eval_batch_size = 1;
  run(config_);
  const auto whole = metrics();
  config_.training.output_dir = (directory_ / "stopped").string();
  signal_evaluation_ = 7;  // the second batch of the evaluation at step 4, after five before the training
  const TrainingSummary summary = run(config_);
  EXPECT_EQ(summary.stopped_by, SIGTERM);
  EXPECT_EQ(summary.steps, 4);
  signal_evaluation_ = -1;
  run(resuming());
  fs::rename(directory_ / "stopped/metrics.jsonl", out("metrics.jsonl"));
  EXPECT_EQ(metrics(), whole);
}

TEST_F(TrainingRun, WithoutSavingASignalSavesNothing) {
  config_.training.save_strategy = Interval::no;
  signal_step_ = 7;
  const TrainingSummary summary = run(config_);
  EXPECT_EQ(summary.steps, 7);
  EXPECT_TRUE(summary.last_checkpoint.empty());
  EXPECT_TRUE(list_checkpoints(directory_ / "out").empty());
}

TEST_F(TrainingRun, HalfALineOfMetricsIsDropped) {
  run(config_);
  const auto before = metrics();
  fs::remove_all(out("checkpoint-12"));
  std::ofstream(out("metrics.jsonl"), std::ios::app) << R"({"step": 13, "los)";
  run(resuming());
  EXPECT_EQ(metrics(), before);
}

TEST_F(TrainingRun, PassesOverADamagedCheckpoint) {
  run(config_);
  const std::string adapter = read_file(out("adapter_model.safetensors"));
  fs::resize_file(out("checkpoint-12/optimizer.safetensors"), 9);
  fs::remove(out("checkpoint-10/trainer_state.json"));
  run(resuming());
  ASSERT_EQ(notes_.size(), 2U);
  EXPECT_THAT(notes_[0], HasSubstr("checkpoint-12/optimizer.safetensors"));
  EXPECT_EQ(read_file(out("adapter_model.safetensors")), adapter);
}

TEST_F(TrainingRun, ResumeWithoutACheckpointStartsAndSaysSo) {
  EXPECT_EQ(run(resuming()).steps, 12);
  ASSERT_EQ(notes_.size(), 1U);
  EXPECT_THAT(notes_[0], HasSubstr("starting from the beginning"));
}

TEST_F(TrainingRun, AnEarlierRunIsNotOverwrittenUnasked) {
  run(config_);
  EXPECT_THAT(message_of(config_, ExitCode::bad_input), HasSubstr("holds an earlier run"));
  config_.training.overwrite_output_dir = true;
  config_.training.max_steps = 3;
  run(config_);
  EXPECT_FALSE(fs::exists(out("checkpoint-12")));
  EXPECT_EQ(metrics().size(), 5U);
}

TEST_F(TrainingRun, ANamedCheckpointMayNotLeaveNewerOnes) {
  run(config_);
  config_.training.resume_from_checkpoint = out("checkpoint-5").string();
  EXPECT_THAT(message_of(config_, ExitCode::bad_input), HasSubstr("checkpoint-12"));
  config_.training.output_dir = (directory_ / "other").string();
  EXPECT_EQ(run(config_).steps, 12);
}

TEST_F(TrainingRun, RefusesToGoOnWithOtherRows) {
  run(config_);
  RunConfig other = resuming();
  other.training.per_device_train_batch_size = 5;
  EXPECT_THAT(message_of(other, ExitCode::bad_input), HasSubstr("rows per step"));
  other = resuming();
  other.training.seed = 1;
  EXPECT_THAT(message_of(other, ExitCode::bad_input), HasSubstr("training.seed"));
  other = resuming();
  other.training.max_steps = 11;
  EXPECT_THAT(message_of(other, ExitCode::bad_input), HasSubstr("beyond the 11 steps"));
  train_.labels.back() += 1;
  EXPECT_THAT(message_of(resuming(), ExitCode::bad_input), HasSubstr("training data"));
}

TEST_F(TrainingRun, ANanLossStopsAndNamesTheLastGoodCheckpoint) {
  const std::string message = message_of(config_, ExitCode::check_failed, 8);
  EXPECT_THAT(message, HasSubstr("step 8: the loss is nan"));
  EXPECT_THAT(message, HasSubstr("checkpoint-5"));
  EXPECT_FALSE(fs::exists(out("checkpoint-10")));
  EXPECT_FALSE(fs::exists(out("adapter_model.safetensors")));
  EXPECT_EQ(metrics().size(), 8U);  // the first evaluation and seven steps
  EXPECT_EQ(run(resuming()).steps, 12);
}

TEST_F(TrainingRun, KeepsTheNewestCheckpoints) {
  config_.training.save_steps = 2;
  config_.training.save_total_limit = 2;
  run(config_);
  const auto kept = list_checkpoints(directory_ / "out");
  ASSERT_EQ(kept.size(), 2U);
  EXPECT_EQ(checkpoint_step(kept[0]), 12);
  EXPECT_EQ(checkpoint_step(kept[1]), 10);
}

TEST_F(TrainingRun, ARunKilledBeforeItRemovedOldCheckpointsRemovesThemWhenItGoesOn) {
  config_.training.save_steps = 2;
  run(config_);
  ASSERT_EQ(list_checkpoints(directory_ / "out").size(), 6U);
  config_.training.save_total_limit = 2;
  run(resuming());  // nothing is left to train, so nothing is saved
  const auto kept = list_checkpoints(directory_ / "out");
  ASSERT_EQ(kept.size(), 2U);
  EXPECT_EQ(checkpoint_step(kept[1]), 10);
}

TEST_F(TrainingRun, EvaluatesAndSavesByEpoch) {
  config_.training.max_steps = -1;
  config_.training.num_train_epochs = 2;
  config_.training.eval_strategy = Interval::epoch;
  config_.training.save_strategy = Interval::epoch;
  EXPECT_EQ(run(config_).steps, 16);
  EXPECT_EQ(list_checkpoints(directory_ / "out").size(), 2U);
  std::int64_t evaluations = 0;
  for (const Json& row : metrics()) evaluations += row.contains("eval_loss") ? 1 : 0;
  EXPECT_EQ(evaluations, 3);
}

TEST_F(TrainingRun, AnUnwritableDirectoryIsNamed) {
  std::ofstream(directory_ / "file") << "x";
  config_.training.output_dir = (directory_ / "file" / "out").string();
  EXPECT_THAT(message_of(config_, ExitCode::bad_input), HasSubstr("file"));
}

TEST_F(TrainingRun, ADirectoryIsOneRunsAtATime) {
  {
    const OutputDirectory held = open_output_directory(config_.training);
    const std::string message = message_of(config_, ExitCode::bad_input);
    for (const auto* part : {"another process", "training.output_dir"}) EXPECT_THAT(message, HasSubstr(part));
    EXPECT_THAT(message, HasSubstr(out(".lock").string()));
  }
  EXPECT_EQ(run(config_).steps, 12);
}

TEST_F(TrainingRun, LeftoversOfKilledRunsGo) {
  run(config_);
  fs::create_directory(out("checkpoint-20.tmp-999999999"));
  fs::create_directory(out("mine.tmp-999999999"));
  run(resuming());
  EXPECT_FALSE(fs::exists(out("checkpoint-20.tmp-999999999")));
  EXPECT_TRUE(fs::exists(out("mine.tmp-999999999"))) << "what the program does not make is not its to remove";
}

}  // namespace
}  // namespace qshard
