#include "core/training/token_batch.h"

#include <algorithm>

#include "core/base/error.h"

namespace qshard {

std::int64_t count_loss_tokens(const TokenBatch& batch) {
  std::int64_t count = 0;
  for (std::int64_t row = 0; row < batch.rows(); ++row) {
    for (std::int64_t t = batch.offsets[row] + 1; t < batch.offsets[row + 1]; ++t) {
      if (batch.labels[static_cast<std::size_t>(t)] != kIgnoredLabel) ++count;
    }
  }
  return count;
}

std::int64_t longest_row(const TokenBatch& batch) {
  std::int64_t longest = 0;
  for (std::size_t row = 1; row < batch.offsets.size(); ++row) {
    longest = std::max(longest, batch.offsets[row] - batch.offsets[row - 1]);
  }
  return longest;
}

void check_tokens(const TokenBatch& batch, std::int64_t vocab_size) {
  for (std::size_t i = 0; i < batch.input_ids.size(); ++i) {
    if (batch.input_ids[i] < 0 || batch.input_ids[i] >= vocab_size) {
      fail_input(
          "token {} of the batch is {}, outside the model's vocabulary of {}; was the data prepared with this "
          "model's tokenizer?",
          i, batch.input_ids[i], vocab_size);
    }
    const std::int32_t label = batch.labels[i];
    if (label != kIgnoredLabel && (label < 0 || label >= vocab_size)) {
      fail_input("label {} of the batch is {}, outside the model's vocabulary of {}", i, label, vocab_size);
    }
  }
}

void check_loss_tokens(std::int64_t loss_tokens) {
  if (loss_tokens > 0) return;
  fail_input(
      "a step's batch has no token to learn from: every label is masked; check the prompt's length against "
      "max_length");
}

}  // namespace qshard
