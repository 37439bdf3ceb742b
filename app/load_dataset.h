#pragma once

#include <string>

#include "core/base/progress.h"
#include "core/launch/rank_link.h"
#include "core/model/model_config.h"
#include "core/run/run_config.h"
#include "core/training/prepared_dataset.h"

namespace qshard {

/// Reads a data set of the configuration: a prepared file as it is, anything else tokenized once into
/// <output_dir>/prepared. Checks it against the model's vocabulary, cuts rows to training.max_length and prints what
/// that changed. `key` is dataset.path or dataset.eval_path. Collective over `link`: rank 0 tokenizes first, and the
/// others find its result where the hosts share the directory. Throws Error(bad_input).
PreparedDataset load_dataset(const RunConfig& config, const ModelConfig& model, const std::string& key, RankLink& link,
                             Progress& progress);

}  // namespace qshard
