#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/json.h"

namespace qshard {

/// Where the numbers of a run come from. What the context of benchmark results has too carries its names.
struct RunContext {
  std::string command;      // that starts the run again
  std::string version;      // of the program
  std::string source_hash;  // of the sources that it was built from; empty: not known, and left out
  std::string device;
  std::string dtype;  // of everything that is not 4-bit
  std::int64_t seed = 0;
  std::int64_t world_size = 0;
  std::string date;  // when the run began, ISO 8601
};

/// One optimizer step as metrics.jsonl records it.
struct StepMetrics {
  std::int64_t step = 0;
  double epoch = 0;
  double loss = 0;
  double learning_rate = 0;
  double grad_norm = 0;
  std::int64_t num_tokens = 0;  // input tokens since the start of the run
  double step_seconds = 0;
  double tokens_per_second = 0;
  std::vector<std::int64_t> peak_memory_bytes;  // by rank
};

struct EvaluationMetrics {
  std::int64_t step = 0;
  double eval_loss = 0;
  std::int64_t eval_tokens = 0;  // unmasked
  double eval_seconds = 0;
};

/// {"context": {...}}.
Json to_json(const RunContext& context);
Json to_json(const StepMetrics& metrics);
Json to_json(const EvaluationMetrics& metrics);

/// metrics.jsonl: a JSON object a line, first the run's context, then its rows in the order of events. A row is handed
/// to the system as soon as it is added; a killed run loses at most part of its last line.
class MetricsFile {
 public:
  /// Opens for appending; a new or empty file begins with `context`. Throws the errors of fail_to_write
  /// (core/base/file.h).
  MetricsFile(const std::filesystem::path& path, const RunContext& context);

  void add(const Json& row);

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Closer> file_;
};

/// Puts the metrics of a run that was ended before its first checkpoint out of a new run's way: renamed to the first
/// free metrics-<number>.jsonl beside them, which is returned; removed where they hold no training step.
std::optional<std::filesystem::path> set_aside_metrics(const std::filesystem::path& path);

/// Makes the file what it was when a checkpoint was written: keeps the context, the steps up to `step` and the
/// evaluations up to `last_eval_step`; drops everything else, half lines too. The file is replaced in one rename; none
/// is made.
void cut_back_metrics(const std::filesystem::path& path, std::int64_t step, std::int64_t last_eval_step);

}  // namespace qshard
