#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#include "core/json.h"

namespace qshard {

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

Json to_json(const StepMetrics& metrics);
Json to_json(const EvaluationMetrics& metrics);

/// metrics.jsonl: a JSON object a line, in the order of events. A row is handed to the system as soon as it is added;
/// a killed run loses at most part of its last line.
class MetricsFile {
 public:
  /// Opens for appending. Throws the errors of fail_to_write (core/file.h).
  explicit MetricsFile(const std::filesystem::path& path);

  void add(const Json& row);

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Closer> file_;
};

/// Makes the file what it was when a checkpoint was written: keeps the steps up to `step` and the evaluations up to
/// `last_eval_step`; drops everything else, half lines too. The file is replaced in one rename; none is made.
void cut_back_metrics(const std::filesystem::path& path, std::int64_t step, std::int64_t last_eval_step);

}  // namespace qshard
