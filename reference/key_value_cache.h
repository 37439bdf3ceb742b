#pragma once

#include <cstdint>
#include <vector>

#include "core/training/token_batch.h"
#include "reference/matrix.h"

namespace qshard::reference {

/// The keys (after RoPE) and values of one layer for the tokens of several rows so far: row i has those from offsets[i]
/// to offsets[i + 1] - 1.
template <typename T>
class KeyValueCache {
 public:
  explicit KeyValueCache(std::int64_t rows = 0) : offsets_(static_cast<std::size_t>(rows) + 1, 0) {}

  [[nodiscard]] const Matrix<T>& key() const { return key_; }
  [[nodiscard]] const Matrix<T>& value() const { return value_; }
  [[nodiscard]] const std::vector<std::int64_t>& offsets() const { return offsets_; }
  /// Tokens of each row: the position of its next one.
  [[nodiscard]] std::vector<std::int64_t> lengths() const;

  /// Appends the batch's tokens to the rows; key and value are [batch.tokens(), kv_heads * head_dim].
  void append(const TokenBatch& batch, const Matrix<T>& key, const Matrix<T>& value);
  /// The rows after it move up.
  void remove_row(std::int64_t row);

 private:
  Matrix<T> key_;  // [tokens, kv_heads * head_dim]
  Matrix<T> value_;
  std::vector<std::int64_t> offsets_;
};

}  // namespace qshard::reference
