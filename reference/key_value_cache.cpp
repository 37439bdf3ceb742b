#include "reference/key_value_cache.h"

#include <utility>

namespace qshard::reference {
namespace {

/// Each row of `cached` followed by the same row of `added`.
template <typename T>
Matrix<T> joined(const Matrix<T>& cached, const std::vector<std::int64_t>& cached_at, const Matrix<T>& added,
                 const TokenBatch& batch) {
  Matrix<T> result(cached.rows() + added.rows(), added.cols());
  for (std::size_t row = 0; row + 1 < cached_at.size(); ++row) {
    const std::int64_t old = cached_at[row + 1] - cached_at[row];
    const std::int64_t fresh = batch.offsets[row + 1] - batch.offsets[row];
    const std::int64_t begin = cached_at[row] + batch.offsets[row];
    if (old > 0) result.middleRows(begin, old) = cached.middleRows(cached_at[row], old);
    result.middleRows(begin + old, fresh) = added.middleRows(batch.offsets[row], fresh);
  }
  return result;
}

template <typename T>
Matrix<T> without_rows(const Matrix<T>& from, std::int64_t begin, std::int64_t count) {
  Matrix<T> result(from.rows() - count, from.cols());
  result.topRows(begin) = from.topRows(begin);
  result.bottomRows(from.rows() - begin - count) = from.bottomRows(from.rows() - begin - count);
  return result;
}

}  // namespace

template <typename T>
std::vector<std::int64_t> KeyValueCache<T>::lengths() const {
  std::vector<std::int64_t> lengths;
  for (std::size_t row = 0; row + 1 < offsets_.size(); ++row) lengths.push_back(offsets_[row + 1] - offsets_[row]);
  return lengths;
}

template <typename T>
void KeyValueCache<T>::append(const TokenBatch& batch, const Matrix<T>& key, const Matrix<T>& value) {
  key_ = joined(key_, offsets_, key, batch);
  value_ = joined(value_, offsets_, value, batch);
  for (std::size_t row = 0; row < offsets_.size(); ++row) offsets_[row] += batch.offsets[row];
}

template <typename T>
void KeyValueCache<T>::remove_row(std::int64_t row) {
  const auto at = static_cast<std::size_t>(row);
  const std::int64_t count = offsets_[at + 1] - offsets_[at];
  key_ = without_rows(key_, offsets_[at], count);
  value_ = without_rows(value_, offsets_[at], count);
  offsets_.erase(offsets_.begin() + row + 1);
  for (std::size_t next = at + 1; next < offsets_.size(); ++next) offsets_[next] -= count;
}

template class KeyValueCache<float>;
template class KeyValueCache<double>;

}  // namespace qshard::reference
