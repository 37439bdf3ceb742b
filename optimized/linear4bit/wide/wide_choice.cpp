#include "optimized/linear4bit/wide/wide.h"

namespace qshard::optimized::wide {

// Measured on an H200 beside the rows of the table after it, both directions: 0.64 to 0.95 of middle_rows' time where
// its tiles are many. Of weights like 14336 x 4096 its tiles of 256 features are fewer than the clusters: at 256 rows
// middle_rows takes 0.89 to 0.96 of its time, and of 5120 x 5120 at 192 rows 0.95 to 0.97.
bool pays(const Linear4bitProblem& problem) {
  constexpr std::int64_t kMi = std::int64_t{1} << 20;
  const std::int64_t elements = problem.shape.out_features * problem.shape.in_features;
  std::int64_t most_rows = 0;
  if (elements >= 96 * kMi) {
    most_rows = 288;
  } else if (elements >= 48 * kMi) {
    most_rows = 224;
  } else if (elements >= 24 * kMi) {
    most_rows = 160;
  } else if (elements >= 16 * kMi) {
    most_rows = 192;  // what comes after it there dequantizes first
  }
  return problem.rows > kMostFusedRows && problem.rows <= most_rows;
}

}  // namespace qshard::optimized::wide
