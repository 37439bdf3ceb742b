#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/json.h"
#include "core/run/run_config.h"

namespace qshard {

/// Text to tokens and back with a model directory's tokenizer. The work is done by app/python/text_tokens.py, run with
/// the interpreter that the environment variable QSHARD_PYTHON names, or python3. Throws Error(bad_input) with that
/// program's message where the input, the tokenizer or the Python installation is at fault.
class TextTokens {
 public:
  explicit TextTokens(std::string model_directory) : model_directory_(std::move(model_directory)) {}

  struct Prompts {
    std::vector<std::vector<std::int32_t>> ids;
    std::vector<std::string> texts;      // as they were rendered
    std::vector<std::int32_t> stop_ids;  // tokens that end a text
  };
  /// Each request is {"prompt"} or {"instruction", "input"}.
  [[nodiscard]] Prompts encode(const Json& requests) const;

  [[nodiscard]] std::string decode(const std::vector<std::int32_t>& ids) const;

  /// Tokenizes a file into `cache` unless the same was done before; returns the prepared file.
  [[nodiscard]] std::filesystem::path prepare(const std::string& input, const DatasetConfig& dataset,
                                              const std::filesystem::path& cache) const;

 private:
  [[nodiscard]] Json run(const std::string& command, const std::vector<std::string>& arguments,
                         std::string_view input) const;

  std::string model_directory_;
};

}  // namespace qshard
