#pragma once

#include <cstdint>

#include "core/training/decoder.h"
#include "core/training/prepared_dataset.h"

namespace qshard {

/// The most that any batch of a run holds: what memory is planned for.
struct BatchBound {
  std::int64_t tokens = 0;
  std::int64_t rows = 0;
  std::int64_t longest = 0;  // tokens of the longest row
};

/// The bound of batches that take `places` rows of the data set, or with `packed_length` above 0 that many groups of
/// rows packed to at most so many tokens (batch_schedule.h).
BatchBound bound_of_batches(const PreparedDataset& dataset, std::int64_t places, std::int64_t packed_length);

/// The larger of both in every respect.
BatchBound larger(const BatchBound& a, const BatchBound& b);

/// What a run does at most at once; what it never does has a bound of zeros.
struct RunBounds {
  BatchBound training{};
  BatchBound evaluation{};
  DecoderBound decoder{};

  [[nodiscard]] BatchBound all() const { return larger(training, evaluation); }
};

}  // namespace qshard
