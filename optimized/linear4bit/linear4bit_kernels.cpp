#include "optimized/linear4bit/linear4bit_kernels.h"

#include <algorithm>
#include <array>

#include "optimized/linear4bit/dequantize_first/dequantize_first.h"
#include "optimized/linear4bit/few_rows/few_rows.h"
#include "optimized/linear4bit/fused/fused.h"
#include "optimized/linear4bit/many_rows/many_rows.h"
#include "optimized/linear4bit/middle_rows/middle_rows.h"
#include "optimized/linear4bit/warpgroup/warpgroup.h"
#include "optimized/linear4bit/wide/wide.h"

namespace qshard::optimized {

namespace {

bool always(const Linear4bitProblem& /*problem*/) {
  return true;
}

std::size_t no_workspace(const Linear4bitProblem& /*problem*/) {
  return 0;
}

constexpr auto kCodebook = Linear4bitOperand::rounded_codebook;
constexpr auto kWeight = Linear4bitOperand::dequantized_weight;
constexpr auto kNone = Linear4bitAlignment::none;
constexpr auto kIn = Linear4bitAlignment::in;
constexpr auto kInAndOut = Linear4bitAlignment::in_and_out;

constexpr std::array kKernels = {
    Linear4bitKernel{"few_rows_tma", few_rows::tma_supports, always, kCodebook, kIn, no_workspace, few_rows::tma_run,
                     nullptr, few_rows::tma_run_together},
    Linear4bitKernel{"few_rows", few_rows::supports, always, kCodebook, kIn, no_workspace, few_rows::run, nullptr},
    Linear4bitKernel{"warpgroup", warpgroup::supports, warpgroup::pays, kCodebook, kNone, warpgroup::workspace_bytes,
                     warpgroup::run, nullptr, warpgroup::run_together},
    Linear4bitKernel{"fused", fused::supports, fused::pays, kCodebook, kIn, fused::workspace_bytes, fused::run,
                     nullptr},
    Linear4bitKernel{"wide", wide::supports, wide::pays, kWeight, kIn, wide::workspace_bytes, wide::run, nullptr},
    Linear4bitKernel{"middle_rows", middle_rows::supports, middle_rows::pays, kWeight, kIn,
                     middle_rows::workspace_bytes, middle_rows::run, nullptr},
    Linear4bitKernel{"many_rows", many_rows::supports, many_rows::pays, kWeight, kInAndOut, many_rows::workspace_bytes,
                     many_rows::run, many_rows::adds},
    Linear4bitKernel{"dequantize_first", always, always, kWeight, kNone, dequantize_first::workspace_bytes,
                     dequantize_first::run, nullptr},
};

}  // namespace

std::span<const Linear4bitKernel> linear4bit_kernels() {
  return kKernels;
}

const Linear4bitKernel& choose_linear4bit_kernel(const Linear4bitProblem& problem, bool aligned) {
  return *std::ranges::find_if(kKernels, [&](const Linear4bitKernel& kernel) {
    return (aligned || kernel.alignment != kInAndOut) && kernel.supports(problem) && kernel.pays(problem);
  });
}

}  // namespace qshard::optimized
