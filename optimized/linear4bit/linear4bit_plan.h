#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <cuda_runtime_api.h>

#include "optimized/device_weight4bit.h"
#include "optimized/linear4bit/linear4bit_addends.h"
#include "optimized/linear4bit/linear4bit_problem.h"
#include "optimized/matmul.h"

namespace qshard::optimized {

struct Linear4bitKernel;
class Linear4bitPlan;

/// One of several products of the same input.
struct Linear4bitProduct {
  const Linear4bitPlan* plan = nullptr;
  const DeviceWeight4bit* weight = nullptr;
  void* out = nullptr;
  std::int64_t out_stride = 0;
};

/// A product with a frozen 4-bit weight W [out_features, in_features], decided on once for a shape, a number of rows
/// and a direction, and run with any weight of that shape:
///
///   forward         y = x W^T    in: x  [rows, in_features]    out: y  [rows, out_features]
///   input_gradient  dx = dy W    in: dy [rows, out_features]   out: dx [rows, in_features]
///
/// The kernel is the first row of linear4bit_kernels() that supports the problem and pays for it; README.md of
/// optimized/ tells which one when. What is computed: the product with the bits of dequantize(), accumulated in float;
/// or, by some kernels for few rows (rounds_codebook()), one pass over the packed weight, where the codebook is rounded
/// to the dtype, the products are exact, and each block's sum is accumulated in float and multiplied by its absmax in
/// float. Any in_features is taken; where it is no multiple of the block size, blocks run on from row to row, and the
/// weight is dequantized first.
///
/// Making a plan asks the current device for its attributes and launches nothing. A plan belongs to that device, and
/// `plans` must outlive it; run() may be called from one thread at a time for the plans of one MatmulPlans, and on
/// the device their products must follow one another, those of replayed graphs, too.
class Linear4bitPlan {
 public:
  /// Throws Error(bad_input) for sizes below 1 or beyond 64-bit arithmetic, an unsupported block size, or a dtype that
  /// is not f32, f16 or bf16.
  /// other: the results have the same bits for every other.busy up to other.at_most. with_addends: run() is to be given
  /// some, so that a kernel that takes them is preferred to one that is a little faster without; adds() tells.
  Linear4bitPlan(MatmulPlans& plans, const Linear4bitShape& shape, std::int64_t rows, Linear4bitDirection direction,
                 const OtherWork& other = {}, bool with_addends = false);

  /// The same by the kernel of this name, whether it pays or not. Throws Error(bad_input) where there is no such kernel
  /// or it does not support the problem.
  Linear4bitPlan(MatmulPlans& plans, const Linear4bitShape& shape, std::int64_t rows, Linear4bitDirection direction,
                 std::string_view kernel);

  [[nodiscard]] const Linear4bitProblem& problem() const { return problem_; }

  /// Device memory that run() needs, in bytes.
  [[nodiscard]] std::size_t workspace_bytes() const;

  /// The kernel that runs where `in` and `out` are aligned to 16 bytes and their strides are multiples of 8: a literal.
  /// Where they are not, a later row of the table may run instead, or `in` is copied to the workspace first.
  [[nodiscard]] const char* kernel_name() const;

  /// Whether that kernel multiplies by the rounded codebook (Linear4bitOperand), so that its product may differ from
  /// that with the bits of dequantize() by the rounding of each weight.
  [[nodiscard]] bool rounds_codebook() const;

  /// One product on `stream`. in_stride and out_stride: elements from one row to the next; in and out are aligned to
  /// their element; out must not overlap the rest; `workspace`: workspace_bytes(), aligned to 256 bytes, contents of no
  /// importance. May be captured into a graph; nothing is allocated and nothing synchronized. Deterministic run to run
  /// for the same alignment of pointers and strides: every sum has one order, or partial sums are added in their order.
  /// addends: an adapter's part, added in float before the result is rounded once, and what `out` holds; for which
  /// adds() must be true. Throws Error(bad_input) for a weight that is not of the plan's shape, bad strides or
  /// pointers, and addends that adds() refuses; Error(rank_failed) when a launch fails.
  void run(const DeviceWeight4bit& weight, const void* in, std::int64_t in_stride, void* out, std::int64_t out_stride,
           void* workspace, cudaStream_t stream, const Linear4bitAddends& addends = {}) const;

  /// Two or three products of one input in fewer launches than one by one, up to 64 rows on Hopper GPUs, by the kernel
  /// that is chosen for one weight of all their features, whatever the plans' own are. Returns whether it was done: it
  /// is not, and nothing happens, where that kernel does not do so, where the input is not aligned to 16 bytes, where
  /// direction, dtype, in_features or rows differ, or where the `available` bytes of workspace are too few. Arguments,
  /// errors and determinism as of run(); the order of a sum may be another one than run()'s.
  static bool run_together(std::span<const Linear4bitProduct> products, const void* in, std::int64_t in_stride,
                           void* workspace, std::size_t available, cudaStream_t stream);

  /// Whether run() with these arguments takes these addends: the kernel that it would run adds them to its sums in
  /// float. Where it does not, the caller adds them to the output (optimized/lora.h, optimized/add.h).
  [[nodiscard]] bool adds(const Linear4bitAddends& addends, const void* in, std::int64_t in_stride, const void* out,
                          std::int64_t out_stride) const;

 private:
  void check_call(const DeviceWeight4bit& weight, const void* in, std::int64_t in_stride, const void* out,
                  std::int64_t out_stride) const;
  [[nodiscard]] const Linear4bitKernel& kernel_for(const void* in, std::int64_t in_stride, const void* out,
                                                   std::int64_t out_stride) const;

  MatmulPlans* plans_;
  Linear4bitProblem problem_;
  const Linear4bitKernel* kernel_;
  const Linear4bitKernel* unaligned_;  // takes what kernel_ cannot because of alignment; may be the same
};

}  // namespace qshard::optimized
