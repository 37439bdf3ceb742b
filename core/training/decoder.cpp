#include "core/training/decoder.h"

#include "core/training/sampling.h"

namespace qshard {
namespace {

std::vector<std::int32_t> greedy_tokens(const TokenLogits& logits, std::size_t rows) {
  std::vector<std::int32_t> tokens;
  for (std::size_t row = 0; row < rows; ++row) {
    tokens.push_back(greedy_token(logits.row(static_cast<std::int64_t>(row))));
  }
  return tokens;
}

}  // namespace

std::vector<std::int32_t> Decoder::start_greedily(std::span<const std::vector<std::int32_t>> prompts) {
  return greedy_tokens(start(prompts), prompts.size());
}

std::vector<std::int32_t> Decoder::next_greedily(std::span<const std::int32_t> tokens) {
  return greedy_tokens(next(tokens), tokens.size());
}

}  // namespace qshard
