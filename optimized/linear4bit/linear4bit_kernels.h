#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <cuda_runtime_api.h>

#include "optimized/device_weight4bit.h"
#include "optimized/linear4bit/linear4bit_addends.h"
#include "optimized/linear4bit/linear4bit_problem.h"
#include "optimized/matmul.h"

namespace qshard::optimized {

/// What one run of a Linear4bitPlan works on, already checked; strides in elements.
struct Linear4bitCall {
  MatmulPlans& plans;
  const DeviceWeight4bit& weight;
  const void* in;
  std::int64_t in_stride;
  void* out;
  std::int64_t out_stride;
  void* workspace;  // aligned to 256 bytes
  cudaStream_t stream;
  Linear4bitAddends addends;  // empty, or what the kernel's adds() takes
};

/// Which of a call's matrices a kernel needs aligned to 16 bytes, with strides that are multiples of 8 elements.
enum class Linear4bitAlignment { none, in, in_and_out };

/// What a kernel multiplies the input by.
enum class Linear4bitOperand {
  rounded_codebook,   // the codebook rounded to the dtype; each block's sum is multiplied by its absmax in float
  dequantized_weight  // the bits of dequantize(): each element is rounded once
};

/// A row of the table that a Linear4bitPlan chooses from.
struct Linear4bitKernel {
  const char* name;
  bool (*supports)(const Linear4bitProblem&);  // whether it computes the product
  bool (*pays)(const Linear4bitProblem&);      // whether it is expected to be faster than the rows after it
  Linear4bitOperand operand;
  Linear4bitAlignment alignment;
  std::size_t (*workspace_bytes)(const Linear4bitProblem&);
  void (*run)(const Linear4bitProblem&, const Linear4bitCall&);
  bool (*adds)(const Linear4bitProblem&, const Linear4bitAddends&);  // whether its epilogue takes these; null: none

  /// Products of one input in fewer launches than alone, for problems of one dtype, in_features and number of rows and
  /// calls of one workspace, of so many bytes. Returns whether it was done; where it was not, nothing happened. Null:
  /// it never is.
  bool (*run_together)(std::span<const Linear4bitProblem* const>, std::span<const Linear4bitCall>,
                       std::size_t) = nullptr;
};

/// All kernels, the preferred ones first. The last one supports every problem, pays always and needs no alignment.
std::span<const Linear4bitKernel> linear4bit_kernels();

/// The first kernel that supports the problem and pays for it. Where the matrices are not `aligned`, those that need an
/// aligned output are left out; an input that is not aligned is copied by the plan.
const Linear4bitKernel& choose_linear4bit_kernel(const Linear4bitProblem& problem, bool aligned);

}  // namespace qshard::optimized
