#include "core/training/batch_bound.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

#include "core/training/batch_schedule.h"

namespace qshard {
namespace {

// The sum of the `count` largest values.
std::int64_t sum_of_largest(std::vector<std::int64_t> values, std::int64_t count) {
  const auto end = values.begin() + std::min<std::int64_t>(count, std::ssize(values));
  std::partial_sort(values.begin(), end, values.end(), std::greater<>());
  return std::accumulate(values.begin(), end, std::int64_t{0});
}

}  // namespace

BatchBound bound_of_batches(const PreparedDataset& dataset, std::int64_t places, std::int64_t packed_length) {
  const RowGroups groups = packed_length > 0 ? pack_rows(dataset, packed_length) : single_rows(dataset.rows());
  std::vector<std::int64_t> tokens;
  std::vector<std::int64_t> rows;
  BatchBound bound;
  for (std::int64_t group = 0; group < groups.count(); ++group) {
    std::int64_t sum = 0;
    for (const std::int64_t row : groups.group(group)) {
      sum += dataset.row_tokens(row);
      bound.longest = std::max(bound.longest, dataset.row_tokens(row));
    }
    tokens.push_back(sum);
    rows.push_back(std::ssize(groups.group(group)));
  }
  bound.tokens = sum_of_largest(std::move(tokens), places);
  bound.rows = sum_of_largest(std::move(rows), places);
  return bound;
}

BatchBound larger(const BatchBound& a, const BatchBound& b) {
  return {std::max(a.tokens, b.tokens), std::max(a.rows, b.rows), std::max(a.longest, b.longest)};
}

}  // namespace qshard
