#pragma once

#include <functional>
#include <string>

#include <CLI/CLI.hpp>

#include "core/base/progress.h"
#include "core/model/quantization_options.h"

namespace qshard {

/// What a command converts, and where to.
struct ConversionPaths {
  std::string input;  // a safetensors file; empty: a model is converted
  std::string model;  // a Hugging Face directory
  std::string output;
};

/// Adds --output and, with these help texts, --input and --model, exactly one of which must be given. `paths` must
/// outlive `command`.
void add_conversion_options(CLI::App& command, ConversionPaths& paths, const std::string& input_help,
                            const std::string& model_help);

/// Adds --quant-type, --blocksize, --double-quant and --quant-storage; `where` ends each help text. `options` must
/// outlive `command`.
void add_quantization_options(CLI::App& command, QuantizationOptions& options, const std::string& where);

/// Runs `convert` with progress on standard output, and ends it with a line on what was written. Before it, removes
/// what a killed conversion to the same place left there. Throws Error(bad_input) where `output` is there, whatever it
/// is.
void run_conversion(const std::string& output, const std::function<void(Progress&)>& convert);

}  // namespace qshard
