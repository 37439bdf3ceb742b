#pragma once

#include <string>
#include <vector>

#include "app/subprocess.h"

namespace qshard {

/// The words that start a command of app/python/text_tokens.py for the tokenizer of a model directory, with the
/// interpreter that the environment variable QSHARD_PYTHON names, or python3.
std::vector<std::string> text_script(const std::string& command, const std::string& model_directory);

/// Throws Error with that program's message where it ended in another exit code than 0: bad_input or out_of_resources
/// as it says.
void check_text_script(const SubprocessResult& result, const std::vector<std::string>& words);

}  // namespace qshard
