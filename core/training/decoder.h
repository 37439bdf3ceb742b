#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qshard {

/// Logits of the next token of several rows, row by row.
struct TokenLogits {
  std::int64_t vocab_size = 0;
  std::vector<float> values;  // [rows, vocab_size]

  [[nodiscard]] std::span<const float> row(std::int64_t i) const {
    return std::span(values).subspan(static_cast<std::size_t>(i * vocab_size), static_cast<std::size_t>(vocab_size));
  }
};

/// The most that a decoder is asked for: what memory is planned for. 0 rows: nothing is generated.
struct DecoderBound {
  std::int64_t rows = 0;
  std::int64_t tokens = 0;      // of a row, prompt included
  bool captures_tokens = true;  // on GPUs a token is one CUDA graph; the bits do not depend on it
};

/// Continues rows of tokens, one token a row and call, without dropout. It keeps what it needs of the tokens so far
/// (attention's keys and values), so that a token costs one pass over one position. The engine that made it must
/// outlive it and keep its adapter. Collective: all ranks make the same calls, and all get the same logits.
class Decoder {
 public:
  virtual ~Decoder() = default;

  /// Begins with these prompts, at most as many as the decoder was made for, and forgets earlier rows. Returns the
  /// logits after each prompt's last token. Throws Error(bad_input) for an empty prompt or an id outside the
  /// vocabulary.
  virtual TokenLogits start(std::span<const std::vector<std::int32_t>> prompts) = 0;

  /// Appends tokens[i] to row i and returns the logits after it. kEndedRow ends a row: it takes no part from then on,
  /// and its logits are zero. Throws Error(bad_input) for an id outside the vocabulary or a row longer than the decoder
  /// was made for.
  virtual TokenLogits next(std::span<const std::int32_t> tokens) = 0;

  /// The same with the greedy choice (greedy_token() of sampling.h) in place of the logits, a token a row; 0 for an
  /// ended row. Faster where logits would have to come from a GPU. Throws Error(check_failed) for NaN or infinite
  /// logits.
  virtual std::vector<std::int32_t> start_greedily(std::span<const std::vector<std::int32_t>> prompts);
  virtual std::vector<std::int32_t> next_greedily(std::span<const std::int32_t> tokens);

  static constexpr std::int32_t kEndedRow = -1;
};

}  // namespace qshard
