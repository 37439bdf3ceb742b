#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "core/training/token_batch.h"
#include "reference/matrix.h"
#ifdef _OPENMP
#include <omp.h>
#endif

namespace qshard::reference {

/// Independent standard normal elements.
template <typename T>
Matrix<T> random_matrix(Eigen::Index rows, Eigen::Index cols, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal;
  Matrix<T> matrix(rows, cols);
  for (Eigen::Index i = 0; i < matrix.size(); ++i) matrix.data()[i] = static_cast<T>(normal(generator));
  return matrix;
}

/// A batch of rows of these lengths with random ids and labels below `vocabulary`; about a third of the labels ignored.
inline TokenBatch random_batch(const std::vector<std::int64_t>& lengths, std::int32_t vocabulary, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  TokenBatch batch;
  for (const std::int64_t length : lengths) {
    for (std::int64_t i = 0; i < length; ++i) {
      batch.input_ids.push_back(static_cast<std::int32_t>(generator() % vocabulary));
      batch.labels.push_back(generator() % 3 == 0 ? kIgnoredLabel : batch.input_ids.back());
    }
    batch.offsets.push_back(batch.tokens());
    batch.row_ids.push_back(1000 + batch.row_ids.size());
  }
  return batch;
}

template <typename T>
void expect_same_bits(const Matrix<T>& expected, const Matrix<T>& actual, const char* what) {
  ASSERT_EQ(expected.rows(), actual.rows()) << what;
  ASSERT_EQ(expected.cols(), actual.cols()) << what;
  if (expected.size() == 0) return;  // an empty matrix has no address
  EXPECT_EQ(0, std::memcmp(expected.data(), actual.data(), sizeof(T) * static_cast<std::size_t>(expected.size())))
      << what;
}

/// |expected - actual| <= bound for every element; NaN fails.
template <typename T, typename U>
void expect_near(const Matrix<T>& expected, const Matrix<U>& actual, double bound, const char* what) {
  ASSERT_EQ(expected.rows(), actual.rows()) << what;
  ASSERT_EQ(expected.cols(), actual.cols()) << what;
  for (Eigen::Index i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(static_cast<double>(expected.data()[i]) - static_cast<double>(actual.data()[i]));
    if (!(difference <= bound)) {
      FAIL() << what << ": element " << i << " is " << actual.data()[i] << ", expected " << expected.data()[i]
             << ", bound " << bound;
    }
  }
}

/// Sets the number of threads of parallel loops, and back at the end of its life.
class ThreadCount {
 public:
#ifdef _OPENMP
  explicit ThreadCount(int threads) : before_(omp_get_max_threads()) {
    omp_set_num_threads(threads);
  }
  ~ThreadCount() {
    omp_set_num_threads(before_);
  }
#else
  explicit ThreadCount(int) {}
  ~ThreadCount() = default;
#endif
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  [[maybe_unused]] int before_ = 1;
};

/// Holds `gradient` to central differences (f(x + h) - f(x - h)) / 2h of f() in every element of x, with h = 2^-17.
/// The error of a difference is h^2 / 6 = 1e-11 times the third derivative, plus the rounding of f, eps |f| / h = 3e-11
/// |f|, with eps grown by the length of f's sums. The bound 1e-7 (1 + |f| + greatest gradient) leaves three orders for
/// those factors; a wrong term in a backward pass is an error of order 1.
template <typename Function>
void expect_gradient(const Function& f, Matrix<double>& x, const Matrix<double>& gradient, const char* what) {
  ASSERT_EQ(x.rows(), gradient.rows()) << what;
  ASSERT_EQ(x.cols(), gradient.cols()) << what;
  const ThreadCount one(1);  // many small evaluations: waking threads would cost more than they do
  constexpr double kStep = 0x1p-17;
  const double bound = 1e-7 * (1 + std::abs(f()) + gradient.cwiseAbs().maxCoeff());
  for (Eigen::Index i = 0; i < x.size(); ++i) {
    const double value = x.data()[i];
    x.data()[i] = value + kStep;
    const double above = f();
    x.data()[i] = value - kStep;
    const double below = f();
    x.data()[i] = value;
    const double difference = std::abs((above - below) / (2 * kStep) - gradient.data()[i]);
    if (!(difference <= bound)) {
      FAIL() << what << ": element " << i << " has gradient " << gradient.data()[i] << ", central difference "
             << (above - below) / (2 * kStep) << ", bound " << bound;
    }
  }
}

/// Calls f() with 1, 2 and 3 threads and returns the three results.
template <typename Function>
auto with_thread_counts(const Function& f) {
  std::vector<decltype(f())> results;
  for (int threads = 1; threads <= 3; ++threads) {
    const ThreadCount count(threads);
    results.push_back(f());
  }
  return results;
}

}  // namespace qshard::reference
