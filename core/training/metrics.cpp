#include "core/training/metrics.h"

#include <cerrno>
#include <sstream>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/file.h"

namespace qshard {
namespace {

bool belongs_before(const std::string& line, std::int64_t step, std::int64_t last_eval_step) {
  const Json row = Json::parse(line, nullptr, false);
  if (!row.is_object()) return false;
  if (row.contains("context")) return true;
  if (!row.contains("step") || !row["step"].is_number_integer()) return false;
  return row["step"].get<std::int64_t>() <= (row.contains("eval_loss") ? last_eval_step : step);
}

}  // namespace

Json to_json(const RunContext& context) {
  Json values{{"command", context.command}, {"version", context.version}, {"device", context.device},
              {"dtype", context.dtype},     {"seed", context.seed},       {"world_size", context.world_size},
              {"date", context.date}};
  if (!context.source_hash.empty()) values["source_hash"] = context.source_hash;
  return Json::object({{"context", values}});
}

Json to_json(const StepMetrics& metrics) {
  return {{"step", metrics.step},
          {"epoch", metrics.epoch},
          {"loss", metrics.loss},
          {"learning_rate", metrics.learning_rate},
          {"grad_norm", metrics.grad_norm},
          {"num_tokens", metrics.num_tokens},
          {"step_seconds", metrics.step_seconds},
          {"tokens_per_second", metrics.tokens_per_second},
          {"peak_memory_bytes", metrics.peak_memory_bytes}};
}

Json to_json(const EvaluationMetrics& metrics) {
  return {{"step", metrics.step},
          {"eval_loss", metrics.eval_loss},
          {"eval_tokens", metrics.eval_tokens},
          {"eval_seconds", metrics.eval_seconds}};
}

MetricsFile::MetricsFile(const std::filesystem::path& path, const RunContext& context)
    : path_(path), file_(std::fopen(path.c_str(), "ae")) {
  if (!file_) fail_to_write(path, errno);
  if (std::filesystem::file_size(path) == 0) add(to_json(context));
}

void MetricsFile::add(const Json& row) {
  const std::string line = python_json(row) + "\n";
  const bool written = std::fwrite(line.data(), 1, line.size(), file_.get()) == line.size();
  if (!written || std::fflush(file_.get()) != 0) fail_to_write(path_, errno);
}

std::optional<std::filesystem::path> set_aside_metrics(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  if (!fs::exists(path)) return std::nullopt;
  if (read_file(path).find("\"step_seconds\"") == std::string::npos) {
    fs::remove(path);
    return std::nullopt;
  }
  fs::path aside;
  for (int number = 1; aside.empty() || fs::exists(aside); ++number) {
    aside = path.parent_path() / fmt::format("metrics-{}.jsonl", number);
  }
  fs::rename(path, aside);
  return aside;
}

void cut_back_metrics(const std::filesystem::path& path, std::int64_t step, std::int64_t last_eval_step) {
  if (!std::filesystem::exists(path)) return;
  std::istringstream lines(read_file(path));
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    if (belongs_before(line, step, last_eval_step)) kept += line + "\n";
  }
  write_file(path, kept);
}

}  // namespace qshard
