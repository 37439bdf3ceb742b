#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace qshard {

using Tokens = std::vector<std::int32_t>;
using Prompts = std::vector<Tokens>;

/// A prompt of each length, of token ids drawn evenly from the vocabulary; the same for the same seed.
inline Prompts random_prompts(const std::vector<std::int64_t>& lengths, std::int64_t vocab, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<std::int32_t> token(0, static_cast<std::int32_t>(vocab) - 1);
  Prompts prompts;
  for (const std::int64_t length : lengths) {
    prompts.emplace_back();
    for (std::int64_t t = 0; t < length; ++t) prompts.back().push_back(token(random));
  }
  return prompts;
}

}  // namespace qshard
