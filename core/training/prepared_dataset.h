#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "core/training/token_batch.h"

namespace qshard {

/// Tokenized rows: row i is [offsets[i], offsets[i + 1]) of input_ids and labels (kIgnoredLabel: masked).
struct PreparedDataset {
  std::vector<std::int32_t> input_ids;
  std::vector<std::int32_t> labels;
  std::vector<std::int64_t> offsets{0};

  [[nodiscard]] std::int64_t rows() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  [[nodiscard]] std::int64_t tokens() const { return static_cast<std::int64_t>(input_ids.size()); }
  [[nodiscard]] std::int64_t row_tokens(std::int64_t row) const {
    return offsets[static_cast<std::size_t>(row) + 1] - offsets[static_cast<std::size_t>(row)];
  }
  [[nodiscard]] std::int64_t loss_tokens() const;
};

/// Reads a safetensors file with input_ids I32 [total], labels I32 [total] and offsets I64 [rows + 1]. Throws
/// Error(bad_input), naming file and tensor, for another dtype or shape, offsets that do not rise from 0 to total, or
/// no row at all.
PreparedDataset load_prepared_dataset(const std::filesystem::path& path);

/// Throws Error(bad_input), naming `where`, row and position, for an id outside [0, vocab_size), or a label outside it
/// that is not kIgnoredLabel.
void check_vocabulary(const PreparedDataset& dataset, std::int64_t vocab_size, std::string_view where);

/// What limit_rows had to do.
struct RowLimits {
  std::int64_t truncated = 0;      // rows cut to max_length
  std::int64_t without_label = 0;  // rows left out: no unmasked token is left after the first one
};

/// Cuts rows to `max_length` tokens at their end and leaves out the rows that then have nothing to learn from.
RowLimits limit_rows(PreparedDataset& dataset, std::int64_t max_length);

/// A row of the data set in a batch, and its place in the run's global order.
struct RowChoice {
  std::int64_t row = 0;
  std::uint64_t id = 0;

  bool operator==(const RowChoice&) const = default;
};

/// The chosen rows one after the other.
TokenBatch make_batch(const PreparedDataset& dataset, std::span<const RowChoice> choices);

/// A 64-bit hash (FNV-1a) of all rows: tells one data set from another when a run is resumed.
std::uint64_t fingerprint(const PreparedDataset& dataset);

}  // namespace qshard
