#include "app/load_dataset.h"

#include <algorithm>

#include "app/text_tokens.h"
#include "core/base/error.h"

namespace qshard {
namespace {

const std::vector<std::string>& files_of(const RunConfig& config, const std::string& key) {
  return key == "dataset.path" ? config.dataset.path : config.dataset.eval_path;
}

}  // namespace

void check_has_dataset(const RunConfig& config, const std::string& key) {
  if (files_of(config, key).empty()) {
    fail_input("{} is missing: give a JSONL file or a prepared safetensors file", key);
  }
}

std::filesystem::path prepare_dataset(const RunConfig& config, const std::string& key, Progress& progress) {
  check_has_dataset(config, key);
  const std::vector<std::string>& files = files_of(config, key);
  const auto is_prepared = [&](const std::string& file) {
    return config.dataset.format == DatasetFormat::prepared || file.ends_with(".safetensors");
  };
  if (std::ranges::any_of(files, is_prepared)) {
    if (files.size() > 1) fail_input("{}: a prepared file stands alone; give one file", config.where(key));
    return files.front();
  }
  progress.show(fmt::format("tokenizing {}", fmt::join(files, ", ")));
  const auto cache = std::filesystem::path(config.training.output_dir) / "prepared";
  return TextTokens(config.model_name_or_path).prepare(files, config.dataset, cache, progress);
}

PreparedDataset load_dataset(const RunConfig& config, const ModelConfig& model, const std::string& key, RankLink& link,
                             Progress& progress) {
  if (!link.is_first()) link.barrier();
  const std::filesystem::path prepared = prepare_dataset(config, key, progress);
  if (link.is_first()) link.barrier();
  return read_dataset(prepared, config, model, key, progress);
}

PreparedDataset read_dataset(const std::filesystem::path& prepared, const RunConfig& config, const ModelConfig& model,
                             const std::string& key, Progress& progress) {
  PreparedDataset dataset = load_prepared_dataset(prepared);
  const std::string path = fmt::format("{}", fmt::join(files_of(config, key), ", "));
  check_vocabulary(dataset, model.vocab_size, path);
  const std::int64_t rows = dataset.rows();
  const RowLimits limits = limit_rows(dataset, config.training.max_length);
  progress.print(fmt::format("{}: {} rows, {} tokens, {} of them in the loss", path, dataset.rows(), dataset.tokens(),
                             dataset.loss_tokens()));
  if (limits.truncated > 0) {
    progress.print(fmt::format("  {} of {} rows were longer than training.max_length ({}) and are truncated",
                               limits.truncated, rows, config.training.max_length));
  }
  if (limits.without_label > 0) {
    progress.print(
        fmt::format("  {} of {} rows have no token to learn from and are left out", limits.without_label, rows));
  }
  if (dataset.rows() == 0) fail_input("{}: no row is left to learn from; raise training.max_length", path);
  return dataset;
}

}  // namespace qshard
