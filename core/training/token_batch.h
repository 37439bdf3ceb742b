#pragma once

#include <cstdint>
#include <vector>

namespace qshard {

/// Labels with this value take no part in the loss.
inline constexpr std::int32_t kIgnoredLabel = -100;

/// Rows of tokens one after the other, without padding: row i is [offsets[i], offsets[i + 1]). Labels are those of the
/// same positions; the model shifts them (position t predicts label t + 1 of its row).
struct TokenBatch {
  std::vector<std::int32_t> input_ids;
  std::vector<std::int32_t> labels;
  std::vector<std::int64_t> offsets{0};  // one more than there are rows
  std::vector<std::uint64_t> row_ids;    // place of each row in the run's global order: keys its dropout masks

  [[nodiscard]] std::int64_t rows() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  [[nodiscard]] std::int64_t tokens() const { return static_cast<std::int64_t>(input_ids.size()); }
};

/// Labels that count towards the loss: those not ignored and not at the first position of their row.
std::int64_t count_loss_tokens(const TokenBatch& batch);

/// Tokens of the longest row; 0 without rows.
std::int64_t longest_row(const TokenBatch& batch);

/// Throws Error(bad_input), naming the place, for a token id or a label outside the vocabulary.
void check_tokens(const TokenBatch& batch, std::int64_t vocab_size);

/// Throws Error(bad_input) unless a step's global batch has a token to learn from.
void check_loss_tokens(std::int64_t loss_tokens);

}  // namespace qshard
