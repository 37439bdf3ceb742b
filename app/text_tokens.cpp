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

Json TextTokens::run(const std::string& command, const std::vector<std::string>& arguments,
                     std::string_view input) const {
  const std::string script = std::string(QSHARD_PYTHON_DIR) + "/text_tokens.py";
  std::vector<std::string> all{python(), script, command, "--tokenizer", model_directory_};
  all.insert(all.end(), arguments.begin(), arguments.end());
  const SubprocessResult result = run_subprocess(all, input);
  constexpr int kWrongInput = 2;
  if (result.exit_code == kWrongInput) throw Error(ExitCode::bad_input, without_newline(result.error));
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

std::filesystem::path TextTokens::prepare(const std::string& input, const DatasetConfig& dataset,
                                          const std::filesystem::path& cache) const {
  std::vector<std::string> arguments{"--input",      input,
                                     "--cache",      cache.string(),
                                     "--format",     std::string(format_name(dataset.format)),
                                     "--text-field", dataset.text_field};
  if (!dataset.completion_only_loss) arguments.emplace_back("--no-completion-only-loss");
  return run("prepare", arguments, {}).at("path").get<std::string>();
}

}  // namespace qshard
