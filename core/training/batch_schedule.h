#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/training/prepared_dataset.h"

namespace qshard {

/// Rows of a data set in groups; a group takes one place in a batch. Group g is [offsets[g], offsets[g + 1]) of rows.
struct RowGroups {
  std::vector<std::int64_t> rows;
  std::vector<std::int64_t> offsets{0};

  [[nodiscard]] std::int64_t count() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  [[nodiscard]] std::span<const std::int64_t> group(std::int64_t g) const;
};

/// Each row a group of its own.
RowGroups single_rows(std::int64_t rows);

/// Packing: whole rows put together to groups of at most `max_length` tokens, best fit decreasing (longest row first,
/// into the fullest group that still has room; ties to the earlier one). Rows of a group stay rows of their own: none
/// sees another. Groups are in the order of their longest row's place in the data set.
RowGroups pack_rows(const PreparedDataset& dataset, std::int64_t max_length);

struct BatchScheduleOptions {
  std::int64_t world_size = 1;
  std::int64_t per_device_batch_size = 1;
  std::int64_t accumulation_steps = 1;
  bool shuffle = true;
  std::uint64_t seed = 0;
};

/// Which rows go to which step, accumulation step and rank. Every epoch takes each group once: in the order of the data
/// set, or shuffled by (seed, epoch). A step takes the next accumulation_steps * world_size * per_device_batch_size
/// groups; an epoch's last step takes what is left and may leave ranks empty. Within a step the groups fill
/// accumulation step 0 rank by rank, then 1, and so on, so that the step's set of rows depends on the product only. A
/// pure function of the step: a resumed run sees what an uninterrupted one sees.
class BatchSchedule {
 public:
  BatchSchedule(RowGroups groups, const BatchScheduleOptions& options);

  [[nodiscard]] std::int64_t steps_per_epoch() const;
  /// Steps in that many epochs: ceil(epochs * steps_per_epoch()).
  [[nodiscard]] std::int64_t steps_in(double epochs) const;
  /// Epochs done after `step` steps, for logs.
  [[nodiscard]] double epochs_after(std::int64_t step) const;

  /// rows[a][rank] of optimizer step `step` (from 1). The order of one epoch is kept between calls.
  std::vector<std::vector<std::vector<RowChoice>>> rows_of_step(std::int64_t step);

 private:
  void order_epoch(std::int64_t epoch);

  RowGroups groups_;
  BatchScheduleOptions options_;
  std::int64_t epoch_ = -1;
  std::vector<std::int64_t> order_;         // groups of epoch_
  std::vector<std::uint64_t> rows_before_;  // rows of the epoch before the group at each place
};

}  // namespace qshard
