#pragma once

#include <CLI/CLI.hpp>

namespace qshard {

/// Each adds one subcommand with its options, its help and what it does; one file a subcommand. Errors are thrown.
void add_train_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_tokenize_command(CLI::App& app);
void add_merge_command(CLI::App& app);
void add_plan_command(CLI::App& app);
void add_quantize_command(CLI::App& app);
void add_dequantize_command(CLI::App& app);

}  // namespace qshard
