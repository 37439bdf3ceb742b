#pragma once

#include <string>

namespace qshard {

/// Arguments for `qshard generate` that ask for the first row of a JSONL file: " --instruction ... --input ...", or
/// " --prompt ..."; a placeholder where the file has no such row.
std::string example_prompt_arguments(const std::string& jsonl);

}  // namespace qshard
