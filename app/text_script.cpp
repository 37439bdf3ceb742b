#include "app/text_script.h"

#include <cstdlib>

#include "core/base/error.h"

namespace qshard {
namespace {

std::string python() {
  const char* named = std::getenv("QSHARD_PYTHON");
  return named != nullptr && *named != '\0' ? named : "python3";
}

std::string without_newline(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace

std::vector<std::string> text_script(const std::string& command, const std::string& model_directory) {
  return {python(), std::string(QSHARD_PYTHON_DIR) + "/text_tokens.py", command, "--tokenizer", model_directory};
}

void check_text_script(const SubprocessResult& result, const std::vector<std::string>& words) {
  for (const ExitCode code : {ExitCode::bad_input, ExitCode::out_of_resources}) {
    if (result.exit_code == static_cast<int>(code)) throw Error(code, without_newline(result.error));
  }
  if (result.exit_code != 0) {
    fail_input("{} {} {} ended with code {}:\n{}", words[0], words[1], words[2], result.exit_code,
               without_newline(result.error));
  }
}

}  // namespace qshard
