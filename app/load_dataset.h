#pragma once

#include <filesystem>
#include <string>

#include "core/base/progress.h"
#include "core/launch/rank_link.h"
#include "core/model/model_config.h"
#include "core/run/run_config.h"
#include "core/training/prepared_dataset.h"

namespace qshard {

/// Throws Error(bad_input) where the configuration names no file for `key`, dataset.path or dataset.eval_path.
void check_has_dataset(const RunConfig& config, const std::string& key);

/// The prepared file of a data set of the configuration: the file itself where it is one, else what tokenizing wrote
/// into <output_dir>/prepared. `key` is dataset.path or dataset.eval_path. Throws Error(bad_input).
std::filesystem::path prepare_dataset(const RunConfig& config, const std::string& key, Progress& progress);

/// Reads a prepared file: checks it against the model's vocabulary, cuts rows to training.max_length and prints what
/// that changed. Throws Error(bad_input).
PreparedDataset read_dataset(const std::filesystem::path& prepared, const RunConfig& config, const ModelConfig& model,
                             const std::string& key, Progress& progress);

/// read_dataset of what prepare_dataset gives. Collective over `link`: rank 0 tokenizes first, and the others find its
/// result where the hosts share the directory.
PreparedDataset load_dataset(const RunConfig& config, const ModelConfig& model, const std::string& key, RankLink& link,
                             Progress& progress);

}  // namespace qshard
