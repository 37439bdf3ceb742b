#include "core/training/batch_schedule.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <set>
#include <tuple>
#include <utility>

#include "core/base/error.h"

namespace qshard {
namespace {

/// A number in [0, bound), every one equally likely; std::uniform_int_distribution differs between libraries.
std::uint64_t draw_below(std::mt19937_64& generator, std::uint64_t bound) {
  const std::uint64_t accepted = std::mt19937_64::max() - std::mt19937_64::max() % bound;
  while (true) {
    const std::uint64_t value = generator();
    if (value < accepted) return value % bound;
  }
}

void shuffle(std::vector<std::int64_t>& values, std::uint64_t seed, std::uint64_t epoch) {
  std::seed_seq sequence{seed & 0xFFFFFFFFU, seed >> 32U, epoch & 0xFFFFFFFFU, epoch >> 32U};
  std::mt19937_64 generator(sequence);
  for (std::size_t last = values.size(); last > 1; --last) {
    std::swap(values[last - 1], values[draw_below(generator, last)]);
  }
}

}  // namespace

std::span<const std::int64_t> RowGroups::group(std::int64_t g) const {
  const auto begin = static_cast<std::size_t>(offsets[static_cast<std::size_t>(g)]);
  const auto end = static_cast<std::size_t>(offsets[static_cast<std::size_t>(g) + 1]);
  return std::span(rows).subspan(begin, end - begin);
}

RowGroups single_rows(std::int64_t rows) {
  RowGroups groups;
  groups.rows.resize(static_cast<std::size_t>(rows));
  groups.offsets.resize(static_cast<std::size_t>(rows) + 1);
  std::iota(groups.rows.begin(), groups.rows.end(), std::int64_t{0});
  std::iota(groups.offsets.begin(), groups.offsets.end(), std::int64_t{0});
  return groups;
}

RowGroups pack_rows(const PreparedDataset& dataset, std::int64_t max_length) {
  std::vector<std::int64_t> longest_first = single_rows(dataset.rows()).rows;
  std::ranges::stable_sort(longest_first, std::greater<>(), [&](std::int64_t row) { return dataset.row_tokens(row); });

  std::vector<std::vector<std::int64_t>> bins;
  std::set<std::pair<std::int64_t, std::size_t>> room;  // (tokens left, bin)
  for (const std::int64_t row : longest_first) {
    const std::int64_t tokens = dataset.row_tokens(row);
    auto fullest = room.lower_bound({tokens, 0});
    std::size_t bin = bins.size();
    std::int64_t left = max_length;
    if (fullest == room.end()) {
      bins.emplace_back();
    } else {
      std::tie(left, bin) = *fullest;
      room.erase(fullest);
    }
    bins[bin].push_back(row);
    room.emplace(std::max<std::int64_t>(left - tokens, 0), bin);
  }
  std::ranges::sort(bins, {}, [](const std::vector<std::int64_t>& bin) { return bin.front(); });

  RowGroups groups;
  for (const auto& bin : bins) {
    groups.rows.insert(groups.rows.end(), bin.begin(), bin.end());
    groups.offsets.push_back(static_cast<std::int64_t>(groups.rows.size()));
  }
  return groups;
}

BatchSchedule::BatchSchedule(RowGroups groups, const BatchScheduleOptions& options)
    : groups_(std::move(groups)), options_(options) {
  if (groups_.count() == 0) fail_input("the data set has no row to train on");
}

std::int64_t BatchSchedule::steps_per_epoch() const {
  const std::int64_t per_step = options_.accumulation_steps * options_.world_size * options_.per_device_batch_size;
  return (groups_.count() + per_step - 1) / per_step;
}

std::int64_t BatchSchedule::steps_in(double epochs) const {
  const double steps = std::ceil(epochs * static_cast<double>(steps_per_epoch()));
  constexpr double kMost = 9e15;
  if (steps > kMost) fail_input("training.num_train_epochs: {} epochs are too many", epochs);
  return static_cast<std::int64_t>(steps);
}

double BatchSchedule::epochs_after(std::int64_t step) const {
  return static_cast<double>(step) / static_cast<double>(steps_per_epoch());
}

void BatchSchedule::order_epoch(std::int64_t epoch) {
  if (epoch == epoch_) return;
  order_ = single_rows(groups_.count()).rows;
  if (options_.shuffle) shuffle(order_, options_.seed, static_cast<std::uint64_t>(epoch));
  rows_before_.assign(order_.size(), 0);
  for (std::size_t place = 1; place < order_.size(); ++place) {
    rows_before_[place] = rows_before_[place - 1] + groups_.group(order_[place - 1]).size();
  }
  epoch_ = epoch;
}

std::vector<std::vector<std::vector<RowChoice>>> BatchSchedule::rows_of_step(std::int64_t step) {
  const std::int64_t epoch = (step - 1) / steps_per_epoch();
  order_epoch(epoch);
  const std::int64_t per_rank = options_.per_device_batch_size;
  const std::int64_t per_step = options_.accumulation_steps * options_.world_size * per_rank;
  std::int64_t place = (step - 1) % steps_per_epoch() * per_step;
  const std::uint64_t first_id = static_cast<std::uint64_t>(epoch) * groups_.rows.size();

  std::vector<std::vector<std::vector<RowChoice>>> result(static_cast<std::size_t>(options_.accumulation_steps));
  for (auto& ranks : result) {
    ranks.resize(static_cast<std::size_t>(options_.world_size));
    for (auto& choices : ranks) {
      for (std::int64_t i = 0; i < per_rank && place < groups_.count(); ++i, ++place) {
        std::uint64_t id = first_id + rows_before_[static_cast<std::size_t>(place)];
        for (const std::int64_t row : groups_.group(order_[static_cast<std::size_t>(place)])) {
          choices.push_back({row, id++});
        }
      }
    }
  }
  return result;
}

}  // namespace qshard
