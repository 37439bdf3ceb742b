#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "core/base/progress.h"
#include "core/run/run_config.h"

namespace qshard {

/// Data sets as tokens, made with a model directory's tokenizer by app/python/text_tokens.py (see text_script.h).
/// Throws Error(bad_input) with that program's message where the input, the tokenizer or the Python installation is at
/// fault.
class TextTokens {
 public:
  explicit TextTokens(std::string model_directory) : model_directory_(std::move(model_directory)) {}

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
  [[nodiscard]] Json run(const std::string& command, const std::vector<std::string>& arguments,
                         Progress* progress = nullptr) const;

  std::string model_directory_;
};

}  // namespace qshard
