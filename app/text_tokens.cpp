#include "app/text_tokens.h"

#include <fmt/format.h>

#include "app/text_script.h"

namespace qshard {
namespace {

std::string_view format_name(DatasetFormat format) {
  switch (format) {
    case DatasetFormat::alpaca:
      return "alpaca";
    case DatasetFormat::prompt_completion:
      return "prompt_completion";
    case DatasetFormat::messages:
      return "messages";
    case DatasetFormat::text:
      return "text";
    case DatasetFormat::automatic:
    case DatasetFormat::prepared:
      break;
  }
  return "auto";
}

}  // namespace

Json TextTokens::run(const std::string& command, const std::vector<std::string>& arguments, Progress* progress) const {
  std::vector<std::string> words = text_script(command, model_directory_);
  words.insert(words.end(), arguments.begin(), arguments.end());
  const auto show_progress = [&](std::string_view line) {
    constexpr std::string_view kMark = "progress ";
    if (progress == nullptr || !line.starts_with(kMark)) return false;
    progress->show(fmt::format("tokenizing: {}", line.substr(kMark.size())));
    return true;
  };
  const SubprocessResult result = run_subprocess(words, {}, show_progress);
  check_text_script(result, words);
  return parse_json(result.output, words[1] + " " + command);
}

std::filesystem::path TextTokens::prepare(const std::vector<std::string>& inputs, const DatasetConfig& dataset,
                                          const std::filesystem::path& cache, Progress& progress) const {
  std::vector<std::string> arguments{"--cache",
                                     cache.string(),
                                     "--format",
                                     std::string(format_name(dataset.format)),
                                     "--text-field",
                                     dataset.text_field,
                                     "--template-date=" + dataset.template_date,
                                     "--progress"};
  for (const std::string& input : inputs) arguments.insert(arguments.end(), {"--input", input});
  for (const std::string& column : dataset.columns) arguments.insert(arguments.end(), {"--column", column});
  if (!dataset.completion_only_loss) arguments.emplace_back("--no-completion-only-loss");
  const Json answer = run("prepare", arguments, &progress);
  for (const auto& note : answer.at("notes")) progress.print("note: " + note.get<std::string>());
  return answer.at("path").get<std::string>();
}

std::vector<std::vector<TextTokens::Segment>> TextTokens::show(const std::filesystem::path& prepared,
                                                               std::int64_t rows) const {
  const Json answer = run("show", {"--prepared", prepared.string(), "--rows", std::to_string(rows)});
  std::vector<std::vector<Segment>> result;
  for (const auto& row : answer.at("rows")) {
    auto& segments = result.emplace_back();
    for (const auto& segment : row)
      segments.push_back({segment.at("learned"), segment.at("tokens"), segment.at("text")});
  }
  return result;
}

}  // namespace qshard
