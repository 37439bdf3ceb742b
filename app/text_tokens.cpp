#include "app/text_tokens.h"

#include <cstdlib>

#include "app/subprocess.h"
#include "core/base/error.h"

namespace qshard {
namespace {

std::string python() {
  const char* named = std::getenv("QSHARD_PYTHON");
  return named != nullptr && *named != '\0' ? named : "python3";
}

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

std::string without_newline(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace

Json TextTokens::run(const std::string& command, const std::vector<std::string>& arguments, std::string_view input,
                     Progress* progress) const {
  const std::string script = std::string(QSHARD_PYTHON_DIR) + "/text_tokens.py";
  std::vector<std::string> all{python(), script, command, "--tokenizer", model_directory_};
  all.insert(all.end(), arguments.begin(), arguments.end());
  const auto show_progress = [&](std::string_view line) {
    constexpr std::string_view kMark = "progress ";
    if (progress == nullptr || !line.starts_with(kMark)) return false;
    progress->show(fmt::format("tokenizing: {}", line.substr(kMark.size())));
    return true;
  };
  const SubprocessResult result = run_subprocess(all, input, show_progress);
  for (const ExitCode code : {ExitCode::bad_input, ExitCode::out_of_resources}) {
    if (result.exit_code == static_cast<int>(code)) throw Error(code, without_newline(result.error));
  }
  if (result.exit_code != 0) {
    fail_input("{} {} {} ended with code {}:\n{}", all[0], script, command, result.exit_code,
               without_newline(result.error));
  }
  return parse_json(result.output, script + " " + command);
}

TextTokens::Prompts TextTokens::encode(const Json& requests) const {
  const Json answer = run("encode", {}, requests.dump());
  return {answer.at("ids"), answer.at("prompts"), answer.at("stop_ids")};
}

std::string TextTokens::decode(const std::vector<std::int32_t>& ids) const {
  return run("decode", {}, Json::array({ids}).dump()).at("texts").at(0);
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
  const Json answer = run("prepare", arguments, {}, &progress);
  for (const auto& note : answer.at("notes")) progress.print("note: " + note.get<std::string>());
  return answer.at("path").get<std::string>();
}

std::vector<std::vector<TextTokens::Segment>> TextTokens::show(const std::filesystem::path& prepared,
                                                               std::int64_t rows) const {
  const Json answer = run("show", {"--prepared", prepared.string(), "--rows", std::to_string(rows)}, {});
  std::vector<std::vector<Segment>> result;
  for (const auto& row : answer.at("rows")) {
    auto& segments = result.emplace_back();
    for (const auto& segment : row)
      segments.push_back({segment.at("learned"), segment.at("tokens"), segment.at("text")});
  }
  return result;
}

}  // namespace qshard
