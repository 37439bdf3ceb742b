#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/run/engine_options.h"

namespace qshard::optimized {

struct AdamWStep {
  AdamWOptions options;
  double learning_rate = 0;
  std::int64_t step = 1;                // counts from 1
  DType parameter_dtype = DType::bf16;  // f32, f16 or bf16
  DType moment_dtype = DType::bf16;     // of exp_avg and exp_avg_sq; f32, f16 or bf16
};

/// One AdamW step (arXiv 1711.05101; the order of torch.optim.AdamW) of `count` elements, with g = gradient * factor[0]
/// rounded to float:
///   m <- m + (1 - beta1) (g - m)              exp_avg, rounded to moment_dtype
///   v <- beta2 v + (1 - beta2) g g            exp_avg_sq, rounded to moment_dtype
///   p <- p (1 - lr weight_decay) - lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + epsilon)
/// and p rounded to parameter_dtype. Each operation in float, rounded to nearest, with m and v as they are before they
/// are rounded to be stored. Equal to the bit to reference::adamw_update where moment_dtype is parameter_dtype; with
/// f32 moments beside 16-bit parameters the moments are those of an f32 reference. A factor that is not finite changes
/// nothing at all: see clip_factor().
///
/// All arrays [count] in device memory, aligned to their elements; accesses take 8 elements at once where the arrays
/// are aligned to 16 bytes. Moves 16 bytes an element with 16-bit parameter and moments. One launch on `stream`, none
/// for a count of 0; nothing is allocated and nothing synchronized. Deterministic: elementwise. Throws Error(bad_input)
/// for a negative count, a step below 1, dtypes that are not floating and null or unaligned pointers;
/// Error(rank_failed) when the launch fails.
void adamw_update(const AdamWStep& step, std::int64_t count, void* parameter, const float* gradient,
                  const float* factor, void* exp_avg, void* exp_avg_sq, cudaStream_t stream);

/// factor[0] = min(1, max_norm / (sqrt(norm_squared[0]) + 1e-6)), in double and then rounded to float: torch's
/// clip_grad_norm_ and reference::clip_factor. 1 where max_norm is 0 or less. NaN where norm_squared[0] is not finite,
/// whatever max_norm is, so that adamw_update() leaves parameter and moments as they are. One launch on `stream`.
/// Throws Error(bad_input) for null or unaligned pointers; Error(rank_failed) when the launch fails.
void clip_factor(const double* norm_squared, double max_norm, float* factor, cudaStream_t stream);

}  // namespace qshard::optimized
