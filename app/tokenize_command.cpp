#include <cstdio>
#include <filesystem>

#include "app/commands.h"
#include "app/config_options.h"
#include "app/load_dataset.h"
#include "app/text_tokens.h"
#include "core/base/error.h"
#include "core/formats/hf_config.h"

namespace qshard {
namespace {

/// Each line of a text behind a mark that says whether it is learned.
std::string marked_lines(const TextTokens::Segment& segment) {
  const std::string_view mark = segment.learned ? "learned | " : "given   | ";
  std::string lines;
  std::string_view rest = segment.text;
  while (!rest.empty()) {
    const std::size_t length = std::min(rest.find('\n'), rest.size() - 1) + 1;
    lines += mark;
    lines += rest.substr(0, length);
    rest.remove_prefix(length);
    if (!lines.ends_with('\n')) lines += '\n';
  }
  return lines;
}

void print_row(std::size_t row, const std::vector<TextTokens::Segment>& segments, Progress& progress) {
  std::int64_t tokens = 0;
  std::int64_t learned = 0;
  std::string text;
  for (const TextTokens::Segment& segment : segments) {
    tokens += segment.tokens;
    learned += segment.learned ? segment.tokens : 0;
    text += marked_lines(segment);
  }
  if (text.ends_with('\n')) text.pop_back();
  progress.print(fmt::format("--- row {}: {} tokens, {} learned\n{}", row, tokens, learned, text));
}

void tokenize(const RunConfig& config, std::int64_t rows) {
  Progress progress(stdout);
  const ModelConfig model = read_hf_config(std::filesystem::path(config.model_name_or_path) / "config.json");
  if (config.dataset.path.empty() && config.dataset.eval_path.empty()) {
    fail_input("dataset.path is missing: there is nothing to tokenize");
  }
  for (const std::string key : {"dataset.path", "dataset.eval_path"}) {
    if ((key == "dataset.path" ? config.dataset.path : config.dataset.eval_path).empty()) continue;
    const std::filesystem::path prepared = prepare_dataset(config, key, progress);
    read_dataset(prepared, config, model, key, progress);
    progress.print(fmt::format("  prepared in {}", prepared.string()));
    const auto shown = TextTokens(config.model_name_or_path).show(prepared, rows);
    for (std::size_t row = 0; row < shown.size(); ++row) print_row(row, shown[row], progress);
  }
}

}  // namespace

void add_tokenize_command(CLI::App& app) {
  auto path = std::make_shared<std::string>();
  auto rows = std::make_shared<std::int64_t>(3);
  auto overrides = std::make_shared<Overrides>();
  CLI::App* command = app.add_subcommand("tokenize", "Prepares the data alone and shows what is learned");
  command->add_option("CONFIG", *path, "Run configuration (YAML)")->required();
  command->add_option("--show", *rows, "Rows to print of each data set")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  add_config_options(*command, overrides, {});
  command->callback([path, rows, overrides] { tokenize(load_run_config(*path, *overrides), *rows); });
}

}  // namespace qshard
