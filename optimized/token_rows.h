#pragma once

#include <cstdint>

namespace qshard::optimized {

/// Rows of tokens one after the other, without padding: row i is [offsets[i], offsets[i + 1]). All arrays are on the
/// device.
struct TokenRows {
  const std::int32_t* input_ids = nullptr;  // [tokens]
  const std::int32_t* targets = nullptr;    // [tokens] label of the next position of the same row, or kIgnoredLabel
  const std::int32_t* positions = nullptr;  // [tokens] position in the token's own row
  const std::int32_t* offsets = nullptr;    // [rows + 1]
  const std::uint32_t* row_ids = nullptr;   // [rows] row id mod 2^32: keys dropout
  std::int32_t tokens = 0;
  std::int32_t rows = 0;
  std::int32_t longest = 0;              // tokens of the longest row
  const std::int32_t* row_of = nullptr;  // [tokens] the row that a token belongs to
};

}  // namespace qshard::optimized
