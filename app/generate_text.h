#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "app/text_service.h"
#include "core/model/model_config.h"
#include "core/training/batch_bound.h"
#include "core/training/sampling.h"
#include "core/training/training_engine.h"

namespace qshard {

struct GenerationOptions {
  std::int64_t max_new_tokens = 64;
  std::int64_t batch_size = 1;  // prompts that are continued at once
  SamplingOptions sampling;
};

/// How an answer ended.
struct AnswerEnd {
  std::size_t prompt = 0;
  std::int64_t tokens = 0;
  std::string_view reason;  // stop, length (max_new_tokens) or positions (the model has no more)
};

/// Takes answers prompt after prompt: an answer's text in pieces as they come, then its end.
class AnswerOutput {
 public:
  virtual ~AnswerOutput() = default;
  virtual void begin(std::size_t prompt) = 0;
  virtual void text(std::string_view piece) = 0;
  virtual void end(const AnswerEnd& end) = 0;
};

/// The most that generate_answers asks of a decoder. Throws Error(bad_input) for a prompt that leaves no position of
/// the model for a new token.
DecoderBound decoder_bound(const std::vector<std::vector<std::int32_t>>& prompts, const GenerationOptions& options,
                           const ModelConfig& model);

/// Goes on from each prompt up to a stop token, before the first stop text, or to its length. Prompt i draws with the
/// seed plus i, so that its answer does not depend on which other prompts there are.
void generate_answers(TrainingEngine& engine, const ModelConfig& model, const EncodedPrompts& prompts,
                      const GenerationOptions& options, TextService& text, AnswerOutput& output);

}  // namespace qshard
