#include "core/training/training_run.h"

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
    Progress progress(sink_);
    TrainingJob job{config, engine, train_, &eval_, output, save_values, progress, context_};
    return run_training(job);
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
    fs::remove(out("adapter_model.safetensors"));
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
  run(resuming());
  EXPECT_EQ(lines().front()["context"]["seed"], 8);
  EXPECT_EQ(metrics().size(), 14U);
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
  run(resuming());
  EXPECT_FALSE(fs::exists(out("checkpoint-20.tmp-999999999")));
}

}  // namespace
}  // namespace qshard
