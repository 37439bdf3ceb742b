#include "optimized/linear4bit/linear4bit_problem.h"

#include <algorithm>
#include <limits>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

Linear4bitDevice current_linear4bit_device() {
  return {.multiprocessors = device_attribute(cudaDevAttrMultiProcessorCount),
          .shared_memory = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
          .has_warpgroups = device_attribute(cudaDevAttrComputeCapabilityMajor) == 9};
}

bool Linear4bitProblem::can_fuse() const {
  return forward() && rows <= kMostFusedRows && shape.dtype != DType::f32 && whole_blocks() &&
         shape.in_features <= std::numeric_limits<std::int32_t>::max() / 2;
}

void check_problem(const Linear4bitProblem& problem) {
  const Linear4bitShape& shape = problem.shape;
  check_floating(shape.dtype, "the compute dtype of a 4-bit linear layer");
  check_at_least(problem.rows, 1, "the number of rows of a 4-bit linear layer's input");
  check_at_least(shape.out_features, 1, "out_features of a 4-bit linear layer");
  check_at_least(shape.in_features, 1, "in_features of a 4-bit linear layer");
  check_blocksize(shape.blocksize);
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max() / 64;
  if (shape.out_features > kMost / shape.in_features ||
      problem.rows > kMost / std::max(shape.in_features, shape.out_features)) {
    fail_input("a 4-bit linear layer of [{}, {}] over {} rows overflows 64-bit sizes", shape.out_features,
               shape.in_features, problem.rows);
  }
}

}  // namespace qshard::optimized
