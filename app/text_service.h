#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/line_process.h"
#include "core/base/json.h"

namespace qshard {

/// What to go on from.
struct PromptRequest {
  Json prompts = Json::array();       // each {"prompt"}, {"messages"}, or {"instruction", "input"}
  std::string file;                   // of further ones: lines of text, or rows with those fields; empty: none
  bool chat = false;                  // texts are the user's messages, for the model's chat template
  std::optional<std::string> system;  // the system's message of such a chat
  std::vector<std::string> stop;      // texts that end an answer
};

struct EncodedPrompts {
  std::vector<std::vector<std::int32_t>> ids;
  std::vector<std::string> texts;       // as they were rendered
  std::vector<std::int32_t> stop_ids;   // tokens that end a text, the model's own and those of `stop`
  std::vector<std::string> stop_texts;  // of `stop`, what is more than a special token
};

/// Prompts to tokens and tokens to text with a model directory's tokenizer, by one running app/python/text_tokens.py.
/// Throws Error(bad_input) with that program's message where a prompt, the tokenizer or the Python installation is at
/// fault.
class TextService {
 public:
  explicit TextService(const std::string& model_directory);

  EncodedPrompts encode(const PromptRequest& request);

  /// The text of each list of tokens, special tokens left out.
  std::vector<std::string> decode(const std::vector<std::vector<std::int32_t>>& ids);

 private:
  Json ask(const Json& question);

  std::vector<std::string> words_;
  LineProcess process_;
};

}  // namespace qshard
