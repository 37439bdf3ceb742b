#pragma once

#include <string>

#include "core/llama_config.h"
#include "core/prepared_dataset.h"
#include "core/progress.h"
#include "core/run_config.h"

namespace qshard {

/// Reads a data set of the configuration: a prepared file as it is, anything else tokenized once into
/// <output_dir>/prepared. Checks it against the model's vocabulary, cuts rows to training.max_length and prints what
/// that changed. `key` is dataset.path or dataset.eval_path. Throws Error(bad_input).
PreparedDataset load_dataset(const RunConfig& config, const LlamaConfig& model, const std::string& key,
                             Progress& progress);

}  // namespace qshard
