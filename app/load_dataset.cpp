#include "app/load_dataset.h"

#include "app/text_tokens.h"
#include "core/base/error.h"

namespace qshard {
namespace {

std::filesystem::path prepared_file(const RunConfig& config, const std::string& path, Progress& progress) {
  if (config.dataset.format == DatasetFormat::prepared || path.ends_with(".safetensors")) return path;
  progress.show(fmt::format("tokenizing {}", path));
  const auto cache = std::filesystem::path(config.training.output_dir) / "prepared";
  return TextTokens(config.model_name_or_path).prepare(path, config.dataset, cache);
}

}  // namespace

PreparedDataset load_dataset(const RunConfig& config, const ModelConfig& model, const std::string& key, RankLink& link,
                             Progress& progress) {
  const std::string& path = key == "dataset.path" ? config.dataset.path : config.dataset.eval_path;
  if (path.empty()) fail_input("{} is missing: give a JSONL file or a prepared safetensors file", key);
  if (!link.is_first()) link.barrier();
  const std::filesystem::path prepared = prepared_file(config, path, progress);
  if (link.is_first()) link.barrier();
  PreparedDataset dataset = load_prepared_dataset(prepared);
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
