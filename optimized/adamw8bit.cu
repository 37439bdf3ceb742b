#include <algorithm>
#include <cmath>

#include "core/tensor/weight4bit.h"
#include "optimized/adamw8bit.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/dynamic_map_search.cuh"
#include "optimized/element_vector.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/team_reduce.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kPerLane = kMomentBlocksize / 32;
constexpr std::int64_t kLargestGrid = 1056;  // eight thread blocks on each of an H100's multiprocessors

/// The factors of the formula, made in double from the rounded betas and rounded once, as the reference has them.
struct Factors {
  float beta1, beta2, keep, keep_sq, step_size, epsilon, decay;
  bool decays;

  explicit Factors(const AdamWStep& step) {
    const AdamWOptions& options = step.options;
    beta1 = static_cast<float>(options.beta1);
    beta2 = static_cast<float>(options.beta2);
    keep = 1.0F - beta1;
    keep_sq = 1.0F - beta2;
    const auto t = static_cast<double>(step.step);
    const double correction = std::sqrt(1.0 - std::pow(static_cast<double>(beta2), t));
    step_size = static_cast<float>(step.learning_rate * correction / (1.0 - std::pow(static_cast<double>(beta1), t)));
    epsilon = static_cast<float>(correction * options.epsilon);
    decay = static_cast<float>(1.0 - step.learning_rate * options.weight_decay);
    decays = options.weight_decay > 0;
  }
};

/// A map for both ways: from codes to values, and for the search.
struct SharedMap {
  float value[256];
  SearchTree tree;
};

/// kPerLane neighbouring elements, of which the first `count` exist; the others are 0.
template <typename T>
__device__ __forceinline__ ElementVector<T, kPerLane> load(const T* array, std::int64_t count) {
  if (count >= kPerLane) return vector_at<kPerLane>(array, 0);
  ElementVector<T, kPerLane> vector;
#pragma unroll
  for (int e = 0; e < kPerLane; ++e) vector.element[e] = e < count ? array[e] : static_cast<T>(0.0F);
  return vector;
}

template <typename T>
__device__ __forceinline__ void store(T* array, std::int64_t count, const ElementVector<T, kPerLane>& vector) {
  if (count >= kPerLane) {
    vector_at<kPerLane>(array, 0) = vector;
    return;
  }
#pragma unroll
  for (int e = 0; e < kPerLane; ++e) {
    if (e < count) array[e] = vector.element[e];
  }
}

/// By a warp, kPerLane values a lane: the block's absmax and codes, of which the lane's first `count` are stored.
template <bool kKeepSign>
__device__ __forceinline__ void quantize_block(const float (&values)[kPerLane], const SharedMap& map,
                                               std::uint8_t* codes, std::int64_t count, float* absmax) {
  float largest = 0.0F;
#pragma unroll
  for (int e = 0; e < kPerLane; ++e) largest = fmaxf(largest, fabsf(values[e]));
  largest = lanes_reduce<32>(largest, Maximum());
  float scaled[kPerLane];
#pragma unroll
  for (int e = 0; e < kPerLane; ++e) scaled[e] = __fdiv_rn(values[e], largest);
  std::uint32_t codes_of_values[kPerLane];
  nearest_codes(map.tree, scaled, codes_of_values);
  ElementVector<std::uint8_t, kPerLane> found;
#pragma unroll
  for (int e = 0; e < kPerLane; ++e) {
    std::uint32_t code = codes_of_values[e];
    if (kKeepSign && signbit(map.value[code]) != signbit(values[e])) code += values[e] > 0.0F ? 1U : 0xFFU;
    found.element[e] = static_cast<std::uint8_t>(code);
  }
  store(codes, count, found);
  if (threadIdx.x % 32 == 0) *absmax = largest;
}

/// One warp a block of moments, kPerLane consecutive elements a lane. Every operation is one rounding to float, as in
/// the reference: the intrinsics keep the compiler from fusing them.
template <typename P>
__global__ void __launch_bounds__(kThreads)
    update_kernel(const Factors by, std::int64_t count, P* parameter, const float* gradient, const float* factor,
                  const Moment8bit exp_avg, const Moment8bit exp_avg_sq) {
  begin_early_kernel();
  __shared__ SharedMap map;
  __shared__ SharedMap map_sq;
  map.value[threadIdx.x] = exp_avg.map[threadIdx.x];
  map_sq.value[threadIdx.x] = exp_avg_sq.map[threadIdx.x];
  build_tree(map.tree, exp_avg.map);
  build_tree(map_sq.tree, exp_avg_sq.map);
  __syncthreads();
  const float scale = factor[0];
  if (!isfinite(scale)) return;
  const std::int64_t blocks = (count + kMomentBlocksize - 1) / kMomentBlocksize;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kWarps;
  for (std::int64_t block = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32; block < blocks;
       block += stride) {
    const std::int64_t first = block * kMomentBlocksize + threadIdx.x % 32 * kPerLane;
    const std::int64_t here = count - first;
    float p[kPerLane];
    float g[kPerLane];
    to_floats(load(parameter + first, here), p);
    to_floats(load(gradient + first, here), g);
    const auto m_codes = load(exp_avg.codes + first, here);
    const auto v_codes = load(exp_avg_sq.codes + first, here);
    const float m_absmax = exp_avg.absmax[block];
    const float v_absmax = exp_avg_sq.absmax[block];
    float m[kPerLane];
    float v[kPerLane];
#pragma unroll
    for (int e = 0; e < kPerLane; ++e) {
      g[e] = __fmul_rn(g[e], scale);
      const float old_m = __fmul_rn(map.value[m_codes.element[e]], m_absmax);
      const float old_v = __fmul_rn(map_sq.value[v_codes.element[e]], v_absmax);
      const bool counts = e < here && isfinite(g[e]);
      m[e] = counts ? __fadd_rn(__fmul_rn(old_m, by.beta1), __fmul_rn(by.keep, g[e])) : 0.0F;
      v[e] = counts ? __fadd_rn(__fmul_rn(old_v, by.beta2), __fmul_rn(__fmul_rn(by.keep_sq, g[e]), g[e])) : 0.0F;
      const float ratio = __fdiv_rn(m[e], __fadd_rn(__fsqrt_rn(v[e]), by.epsilon));
      if (counts) p[e] = __fsub_rn(p[e], __fmul_rn(by.step_size, ratio));
    }
    if (by.decays) {
      round_to<P>(p);
#pragma unroll
      for (int e = 0; e < kPerLane; ++e) {
        if (isfinite(g[e])) p[e] = __fmul_rn(p[e], by.decay);
      }
    }
    store(parameter + first, here, rounded<P>(p));
    quantize_block<true>(m, map, exp_avg.codes + first, here, exp_avg.absmax + block);
    quantize_block<false>(v, map_sq, exp_avg_sq.codes + first, here, exp_avg_sq.absmax + block);
  }
}

void check_moment(const Moment8bit& moment, const char* what) {
  check_pointer(moment.codes, kAccessBytes, what);
  check_pointer(moment.absmax, sizeof(float), what);
  check_pointer(moment.map, sizeof(float), what);
}

}  // namespace

void adamw8bit_update(const AdamWStep& step, std::int64_t count, void* parameter, const float* gradient,
                      const float* factor, const Moment8bit& exp_avg, const Moment8bit& exp_avg_sq,
                      cudaStream_t stream) {
  check_floating(step.parameter_dtype, "the dtype of AdamW's parameter");
  check_at_least(step.step, 1, "the step of AdamW");
  check_at_least(count, 0, "the number of AdamW's elements");
  if (count == 0) return;
  check_pointer(parameter, kAccessBytes, "AdamW's parameter");
  check_pointer(gradient, kAccessBytes, "AdamW's gradient");
  check_pointer(factor, sizeof(*factor), "AdamW's factor of the gradient");
  check_moment(exp_avg, "AdamW's exp_avg");
  check_moment(exp_avg_sq, "AdamW's exp_avg_sq");
  with_dtype(step.parameter_dtype, [&]<typename P>() {
    const auto grid = static_cast<unsigned>(std::min(kLargestGrid, block_count(count, kWarps * kMomentBlocksize)));
    launch_early(update_kernel<P>, dim3(grid), kThreads, 0, stream, Factors(step), count, static_cast<P*>(parameter),
                 gradient, factor, exp_avg, exp_avg_sq);
  });
}

}  // namespace qshard::optimized
