#include "app/text_service.h"

#include "app/text_script.h"
#include "core/base/error.h"

namespace qshard {
namespace {

/// One line of ASCII, whatever the locale of the reader.
std::string ascii_line(const Json& json) {
  try {
    constexpr int kOneLine = -1;
    return json.dump(kOneLine, ' ', true);
  } catch (const Json::type_error&) {
    fail_input("a prompt or stop text on the command line is not UTF-8");
  }
}

}  // namespace

TextService::TextService(const std::string& model_directory)
    : words_(text_script("serve", model_directory)), process_(words_) {}

Json TextService::ask(const Json& question) {
  const std::optional<std::string> answer = process_.ask(ascii_line(question));
  if (!answer) {
    check_text_script(process_.end(), words_);
    fail_input("{} {} ended without an answer", words_[1], words_[2]);
  }
  Json json = parse_json(*answer, words_[1] + " " + words_[2]);
  if (json.contains("error")) fail_input("{}", json.at("error").get<std::string>());
  return json;
}

EncodedPrompts TextService::encode(const PromptRequest& request) {
  Json asked{{"prompts", request.prompts}, {"chat", request.chat}, {"stop", request.stop}};
  if (!request.file.empty()) asked["file"] = request.file;
  if (request.system) asked["system"] = *request.system;
  const Json answer = ask({{"encode", asked}});
  return {answer.at("ids"), answer.at("prompts"), answer.at("stop_ids"), answer.at("stop_texts")};
}

std::vector<std::string> TextService::decode(const std::vector<std::vector<std::int32_t>>& ids) {
  return ask({{"decode", ids}}).at("texts");
}

}  // namespace qshard
