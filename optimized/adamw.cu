#include <cmath>

#include "core/tensor/weight4bit.h"
#include "optimized/adamw.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/element_vector.cuh"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;
constexpr int kWide = 8;  // elements that a thread updates at once: 16 bytes of a 16-bit array

/// The factors of the formula, made in double and rounded once, as the reference has them.
struct AdamWFactors {
  float step_size, correction, decay, keep, beta2, keep_sq, epsilon;

  explicit AdamWFactors(const AdamWStep& step) {
    const AdamWOptions& options = step.options;
    const auto t = static_cast<double>(step.step);
    step_size = static_cast<float>(step.learning_rate / (1.0 - std::pow(options.beta1, t)));
    correction = static_cast<float>(std::sqrt(1.0 - std::pow(options.beta2, t)));
    decay = static_cast<float>(1.0 - step.learning_rate * options.weight_decay);
    keep = static_cast<float>(1.0 - options.beta1);
    beta2 = static_cast<float>(options.beta2);
    keep_sq = static_cast<float>(1.0 - options.beta2);
    epsilon = static_cast<float>(options.epsilon);
  }
};

template <typename P, typename M>
struct AdamWArrays {
  P* parameter;
  const float* gradient;
  M* exp_avg;
  M* exp_avg_sq;
};

/// kCount elements from `first`, a multiple of it, on. Every operation is one rounding to float, as in the reference:
/// the intrinsics keep the compiler from fusing them.
template <int kCount, typename P, typename M>
__device__ __forceinline__ void update(const AdamWFactors& by, float factor, const AdamWArrays<P, M>& arrays,
                                       std::int64_t first) {
  float p[kCount];
  float g[kCount];
  float m[kCount];
  float v[kCount];
  to_floats(vector_at<kCount>(arrays.parameter + first, 0), p);
  to_floats(vector_at<kCount>(arrays.gradient + first, 0), g);
  to_floats(vector_at<kCount>(arrays.exp_avg + first, 0), m);
  to_floats(vector_at<kCount>(arrays.exp_avg_sq + first, 0), v);
#pragma unroll
  for (int e = 0; e < kCount; ++e) {
    g[e] = __fmul_rn(g[e], factor);
    m[e] = __fadd_rn(m[e], __fmul_rn(by.keep, __fsub_rn(g[e], m[e])));
    v[e] = __fadd_rn(__fmul_rn(by.beta2, v[e]), __fmul_rn(__fmul_rn(by.keep_sq, g[e]), g[e]));
  }
#pragma unroll
  for (int e = 0; e < kCount; ++e) {
    const float denominator = __fadd_rn(__fdiv_rn(__fsqrt_rn(v[e]), by.correction), by.epsilon);
    p[e] = __fsub_rn(__fmul_rn(p[e], by.decay), __fdiv_rn(__fmul_rn(by.step_size, m[e]), denominator));
  }
  vector_at<kCount>(arrays.parameter + first, 0) = rounded<P>(p);
  vector_at<kCount>(arrays.exp_avg + first, 0) = rounded<M>(m);
  vector_at<kCount>(arrays.exp_avg_sq + first, 0) = rounded<M>(v);
}

template <int kCount, typename P, typename M>
__global__ void __launch_bounds__(kThreads)
    update_kernel(const AdamWFactors by, std::int64_t count, const float* factor, const AdamWArrays<P, M> arrays) {
  begin_early_kernel();
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kCount;
  const float scale = factor[0];
  if (!isfinite(scale)) return;
  if (first + kCount <= count) return update<kCount>(by, scale, arrays, first);
  for (std::int64_t i = first; i < count; ++i) update<1>(by, scale, arrays, i);
}

__global__ void clip_kernel(const double* norm_squared, double max_norm, float* factor) {
  begin_early_kernel();
  const double norm = sqrt(norm_squared[0]);
  if (!isfinite(norm)) {
    factor[0] = NAN;
  } else {
    factor[0] = max_norm > 0 ? static_cast<float>(fmin(1.0, max_norm / (norm + 1e-6))) : 1.0F;
  }
}

}  // namespace

void adamw_update(const AdamWStep& step, std::int64_t count, void* parameter, const float* gradient,
                  const float* factor, void* exp_avg, void* exp_avg_sq, cudaStream_t stream) {
  check_floating(step.parameter_dtype, "the dtype of AdamW's parameter");
  check_floating(step.moment_dtype, "the dtype of AdamW's moments");
  check_at_least(step.step, 1, "the step of AdamW");
  check_at_least(count, 0, "the number of AdamW's elements");
  if (count == 0) return;
  check_pointer(parameter, size_of(step.parameter_dtype), "AdamW's parameter");
  check_pointer(gradient, sizeof(*gradient), "AdamW's gradient");
  check_pointer(factor, sizeof(*factor), "AdamW's factor of the gradient");
  check_pointer(exp_avg, size_of(step.moment_dtype), "AdamW's exp_avg");
  check_pointer(exp_avg_sq, size_of(step.moment_dtype), "AdamW's exp_avg_sq");
  const bool wide = fits_wide_access(DType::u8, {parameter, gradient, exp_avg, exp_avg_sq}, {});
  const auto launch = [&]<typename P, typename M, int kCount>() {
    const AdamWArrays<P, M> arrays{static_cast<P*>(parameter), gradient, static_cast<M*>(exp_avg),
                                   static_cast<M*>(exp_avg_sq)};
    const auto blocks = static_cast<unsigned>(block_count(count, kThreads * kCount));
    launch_early(update_kernel<kCount, P, M>, dim3(blocks), kThreads, 0, stream, AdamWFactors(step), count, factor,
                 arrays);
  };
  with_dtype(step.parameter_dtype, [&]<typename P>() {
    with_dtype(step.moment_dtype, [&]<typename M>() {
      wide ? launch.template operator()<P, M, kWide>() : launch.template operator()<P, M, 1>();
    });
  });
}

void clip_factor(const double* norm_squared, double max_norm, float* factor, cudaStream_t stream) {
  check_pointer(norm_squared, sizeof(*norm_squared), "the squared norm of the gradients");
  check_pointer(factor, sizeof(*factor), "the factor of the gradients");
  launch_early(clip_kernel, dim3(1), 1, 0, stream, norm_squared, max_norm, factor);
}

}  // namespace qshard::optimized
