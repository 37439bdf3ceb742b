#pragma once

#include <cstdint>

namespace qshard::optimized {

/// Rows of tokens one after the other, without padding, as TokenBatch has them; all arrays are device memory. Token t
/// is at `positions[t]` of row `row_of[t]`, which holds tokens offsets[row] to offsets[row + 1] - 1.
struct TokenRows {
  const std::int32_t* input_ids = nullptr;  // [tokens]
  const std::int32_t* targets = nullptr;    // [tokens] label of the next position of the same row; kIgnoredLabel: none
  const std::int32_t* positions = nullptr;  // [tokens] position in the token's own row
  const std::int32_t* offsets = nullptr;    // [rows + 1]
  const std::uint32_t* row_ids = nullptr;   // [rows] row id mod 2^32: keys dropout
  std::int32_t tokens = 0;
  std::int32_t rows = 0;
  std::int32_t longest = 0;              // tokens of the longest row
  const std::int32_t* row_of = nullptr;  // [tokens] the row that a token belongs to
};

}  // namespace qshard::optimized
