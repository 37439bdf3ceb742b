#include "app/example_prompt.h"

#include <fstream>

#include <fmt/format.h>

#include "app/config_options.h"
#include "core/base/json.h"

namespace qshard {

std::string example_prompt_arguments(const std::vector<std::string>& files) {
  std::ifstream file(files.empty() ? std::string() : files.front());
  std::string line;
  std::getline(file, line);
  const Json row = Json::parse(line, nullptr, false);
  const auto text = [&](const char* field) {
    return row.is_object() && row.contains(field) && row[field].is_string() ? row[field].get<std::string>() : "";
  };
  if (!text("instruction").empty()) {
    const std::string input = text("input").empty() ? "" : " --input " + shell_word(text("input"));
    return fmt::format(" --instruction {}{}", shell_word(text("instruction")), input);
  }
  return " --prompt " + (text("prompt").empty() ? "TEXT" : shell_word(text("prompt")));
}

}  // namespace qshard
