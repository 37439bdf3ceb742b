#pragma once

#include <string>
#include <vector>

namespace qshard {

/// Arguments for `qshard generate` that ask for the first row of the first of JSONL files: " --instruction ... --input
/// ...", or " --prompt ..."; a placeholder where the file has no such row.
std::string example_prompt_arguments(const std::vector<std::string>& files);

}  // namespace qshard
