#include "optimized/linear4bit/many_rows/many_rows.h"
#include "optimized/linear4bit/middle_rows/middle_rows.h"

namespace qshard::optimized::middle_rows {

namespace {

// Of large weights many_rows dequantizes in time for its product from about 1,024 rows on, but its tiles leave clusters
// idle. Of its time this kernel takes, four weights from 128 Mi elements on: forward 0.94 to 0.98 at 1,024 rows, and
// where the output is narrower than the input 0.98 to 0.99 at 1,500 (1.00 to 1.07 at 2,048); the gradient 0.96 to 0.99
// at 1,024 rows with a narrower output (1.00 at 1,500), else 0.99 and 1.04.
std::int64_t most_rows_of_large_weights(const Linear4bitProblem& problem) {
  if (!many_rows::pays(problem)) return 1024;
  if (problem.with_addends) return 896;
  const bool narrower = problem.out_width() < problem.in_width();
  if (problem.forward()) return narrower ? 1536 : 1024;
  return narrower ? 1024 : 896;
}

}  // namespace

// Measured on an H200 beside the rows of the table after it. Of their time, for weights from 48 Mi elements on: forward
// 0.67 to 0.93 at 257 to 777 rows; the gradient 0.66 to 0.96 at 193 to 777. At 1,024 rows it is 0.90 to 0.94 of
// dequantizing first. It takes no addends, which many_rows does along with the product. Smaller weights have fewer
// steps for its fixed costs: 0.79 to 0.98 up to 384 rows.
bool pays(const Linear4bitProblem& problem) {
  constexpr std::int64_t kMi = std::int64_t{1} << 20;
  const std::int64_t elements = problem.shape.out_features * problem.shape.in_features;
  std::int64_t most_rows = 0;
  if (elements >= 128 * kMi) {
    most_rows = most_rows_of_large_weights(problem);
  } else if (elements >= 48 * kMi) {
    most_rows = 896;
  } else if (elements >= 24 * kMi) {
    most_rows = 384;
  }
  return problem.rows > kMostFusedRows && problem.rows <= most_rows;
}

}  // namespace qshard::optimized::middle_rows
