#include "app/generate_text.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/training/stop_texts.h"
#include "core/training/text_stream.h"

namespace qshard {
namespace {

/// New tokens of a prompt at most.
std::int64_t most_new_tokens(std::int64_t prompt, const GenerationOptions& options, const ModelConfig& model) {
  return std::min(options.max_new_tokens, model.max_position_embeddings - prompt);
}

/// One answer on its way.
struct Answer {
  std::size_t prompt;
  std::int64_t most;  // tokens
  Sampler sampler;
  StopTexts stops;
  TextStream stream{};
  std::int64_t tokens = 0;
  std::string_view ended{};  // why; empty: it goes on
  std::string pending{};     // text that waits for earlier answers
};

/// Hands answers over in the order of the prompts: the first that goes on as it comes, later ones after it.
class InOrder {
 public:
  InOrder(std::vector<Answer>& answers, AnswerOutput& output) : answers_(answers), output_(output) {}

  void show() {
    for (; next_ < answers_.size(); ++next_, begun_ = false) {
      Answer& answer = answers_[next_];
      if (!begun_) output_.begin(answer.prompt);
      begun_ = true;
      if (!answer.pending.empty()) output_.text(answer.pending);
      answer.pending.clear();
      if (answer.ended.empty()) return;
      output_.end({answer.prompt, answer.tokens, answer.ended});
    }
  }

 private:
  std::vector<Answer>& answers_;
  AnswerOutput& output_;
  std::size_t next_ = 0;
  bool begun_ = false;
};

/// The next token of each answer, by the decoder itself where the choice is greedy, which needs no logits from a GPU.
class NextTokens {
 public:
  NextTokens(Decoder& decoder, std::vector<Answer>& answers, bool greedy)
      : decoder_(decoder), answers_(answers), greedy_(greedy) {}

  std::vector<std::int32_t> start(std::span<const std::vector<std::int32_t>> prompts) {
    return greedy_ ? decoder_.start_greedily(prompts) : choose(decoder_.start(prompts));
  }
  std::vector<std::int32_t> after(std::span<const std::int32_t> tokens) {
    return greedy_ ? decoder_.next_greedily(tokens) : choose(decoder_.next(tokens));
  }

 private:
  std::vector<std::int32_t> choose(const TokenLogits& logits) {
    std::vector<std::int32_t> tokens(answers_.size(), Decoder::kEndedRow);
    for (std::size_t i = 0; i < answers_.size(); ++i) {
      if (answers_[i].ended.empty()) tokens[i] = answers_[i].sampler.next(logits.row(static_cast<std::int64_t>(i)));
    }
    return tokens;
  }

  Decoder& decoder_;
  std::vector<Answer>& answers_;
  bool greedy_;
};

/// Why an answer ends with this token, if it does.
std::string_view end_of(const Answer& answer, std::int32_t token, const std::vector<std::int32_t>& stop_ids,
                        std::int64_t max_new_tokens) {
  if (std::ranges::find(stop_ids, token) != stop_ids.end()) return "stop";
  if (answer.tokens + 1 < answer.most) return {};
  return answer.most < max_new_tokens ? "positions" : "length";
}

/// Adds the tokens to the answers that go on, and their texts to what is pending. A stop token has no text.
void take_tokens(std::vector<Answer>& answers, const std::vector<std::int32_t>& tokens,
                 const std::vector<std::int32_t>& stop_ids, std::int64_t max_new_tokens, TextService& text) {
  std::vector<Answer*> running;
  std::vector<std::vector<std::int32_t>> windows;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    Answer& answer = answers[i];
    if (!answer.ended.empty()) continue;
    answer.ended = end_of(answer, tokens[i], stop_ids, max_new_tokens);
    if (answer.ended != "stop") {
      answer.stream.push(tokens[i]);
      ++answer.tokens;
    }
    running.push_back(&answer);
    for (auto& window : answer.stream.windows()) windows.push_back(std::move(window));
  }
  const std::vector<std::string> texts = text.decode(windows);
  for (std::size_t i = 0; i < running.size(); ++i) {
    Answer& answer = *running[i];
    const bool last = !answer.ended.empty();
    answer.pending += answer.stops.push(answer.stream.take(texts.at(2 * i), texts.at(2 * i + 1), last));
    if (last) answer.pending += answer.stops.finish();
    if (answer.stops.found()) answer.ended = "stop";
  }
}

void generate_batch(Decoder& decoder, std::vector<Answer>& answers, const EncodedPrompts& prompts,
                    const GenerationOptions& options, TextService& text, AnswerOutput& output) {
  InOrder in_order(answers, output);
  NextTokens next(decoder, answers, options.sampling.temperature == 0);
  in_order.show();
  const auto ids = std::span(prompts.ids).subspan(answers.front().prompt, answers.size());
  std::vector<std::int32_t> tokens = next.start(ids);
  while (true) {
    take_tokens(answers, tokens, prompts.stop_ids, options.max_new_tokens, text);
    in_order.show();
    if (std::ranges::none_of(answers, [](const Answer& answer) { return answer.ended.empty(); })) return;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      if (!answers[i].ended.empty()) tokens[i] = Decoder::kEndedRow;
    }
    tokens = next.after(tokens);
  }
}

}  // namespace

DecoderBound decoder_bound(const std::vector<std::vector<std::int32_t>>& prompts, const GenerationOptions& options,
                           const ModelConfig& model) {
  DecoderBound bound;
  bound.rows = std::min(options.batch_size, std::ssize(prompts));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const std::int64_t length = std::ssize(prompts[i]);
    const std::int64_t most = most_new_tokens(length, options, model);
    if (most <= 0) {
      fail_input("prompt {} has {} tokens, and the model {} positions: none is left for a new one; shorten the prompt",
                 i + 1, length, model.max_position_embeddings);
    }
    bound.tokens = std::max(bound.tokens, length + most);
  }
  return bound;
}

void generate_answers(TrainingEngine& engine, const ModelConfig& model, const EncodedPrompts& prompts,
                      const GenerationOptions& options, TextService& text, AnswerOutput& output) {
  const DecoderBound bound = decoder_bound(prompts.ids, options, model);
  const auto decoder = engine.make_decoder(bound.rows, bound.tokens);
  for (std::size_t begin = 0; begin < prompts.ids.size(); begin += static_cast<std::size_t>(bound.rows)) {
    const std::size_t end = std::min(begin + static_cast<std::size_t>(bound.rows), prompts.ids.size());
    std::vector<Answer> answers;
    for (std::size_t i = begin; i < end; ++i) {
      SamplingOptions sampling = options.sampling;
      sampling.seed += i;
      const std::int64_t most = most_new_tokens(std::ssize(prompts.ids[i]), options, model);
      answers.push_back({i, most, Sampler(sampling), StopTexts(prompts.stop_texts)});
    }
    generate_batch(*decoder, answers, prompts, options, text, output);
  }
}

}  // namespace qshard
