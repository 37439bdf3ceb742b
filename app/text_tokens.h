#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/json.h"
#include "core/base/progress.h"
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

  /// Tokenizes files into `cache` unless the same was done before; returns the prepared file. Shows how far it is and
  /// prints what the user should know about the data.
  [[nodiscard]] std::filesystem::path prepare(const std::vector<std::string>& inputs, const DatasetConfig& dataset,
                                              const std::filesystem::path& cache, Progress& progress) const;

  struct Segment {
    bool learned = false;
    std::int64_t tokens = 0;
    std::string text;
  };
  /// The first rows of a prepared file as text, cut where what is learned begins and ends.
  [[nodiscard]] std::vector<std::vector<Segment>> show(const std::filesystem::path& prepared, std::int64_t rows) const;

 private:
  [[nodiscard]] Json run(const std::string& command, const std::vector<std::string>& arguments, std::string_view input,
                         Progress* progress = nullptr) const;

  std::string model_directory_;
};

}  // namespace qshard
