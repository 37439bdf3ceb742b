#include "optimized/device/early_launch.h"
#include "optimized/lora.h"
#include "optimized/lora/element_runs.cuh"
#include "optimized/lora/rank_cuts.h"
#include "optimized/lora/rank_plain.h"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;
constexpr unsigned kAllLanes = 0xFFFFFFFFU;

__device__ __forceinline__ std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

__device__ __forceinline__ float keep(const std::uint8_t* mask, std::int64_t stride, std::int64_t token,
                                      std::int64_t feature, float value) {
  if (mask == nullptr) return value;
  return (mask[token * stride + feature / 8] >> feature % 8 & 1) != 0 ? value : 0.0F;
}

__device__ __forceinline__ float input_value(const ScaledInput& input, const std::uint8_t* mask, std::int64_t token,
                                             std::int64_t feature) {
  const float value = static_cast<const float*>(input.values)[token * input.stride + feature];
  return keep(mask, input.mask_stride, token, feature, value * input.scale);
}

/// A warp for each element of out, those that pad its rows included.
__global__ void __launch_bounds__(kThreads) product_kernel(bool transposed, ScaledInput input, RankProduct product) {
  begin_early_kernel();
  const std::int64_t stride = padded_rank(product.rank);
  const std::int64_t token = thread_index() / 32 / stride;
  const std::int64_t column = thread_index() / 32 % stride;
  if (token >= input.tokens) return;
  const auto* weight = static_cast<const float*>(product.weight);
  float sum = 0.0F;
  if (column < product.rank) {
    for (std::int64_t feature = threadIdx.x % 32; feature < input.features; feature += 32) {
      sum += input_value(input, product.mask, token, feature) *
             weight[transposed ? column * input.features + feature : feature * product.rank + column];
    }
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
  if (threadIdx.x % 32 == 0) static_cast<float*>(product.out)[token * stride + column] = sum;
}

/// A thread for each element of the gradient.
__global__ void __launch_bounds__(kThreads) gradient_kernel(bool transposed, ScaledInput input, RankGradient gradient) {
  begin_early_kernel();
  const std::int64_t i = thread_index();
  if (i >= input.features * gradient.rank) return;
  const std::int64_t feature = transposed ? i % input.features : i / gradient.rank;
  const std::int64_t column = transposed ? i / input.features : i % gradient.rank;
  const std::int64_t stride = padded_rank(gradient.rank);
  const auto* factor = static_cast<const float*>(gradient.factor) + column;
  float sum = 0.0F;
  for (std::int64_t token = 0; token < input.tokens; ++token) {
    sum += input_value(input, gradient.mask, token, feature) * factor[token * stride];
  }
  gradient.sum[i] += sum;
}

struct PlainUpdates {
  UpdatedOutput output;
  RankUpdate updates[kMostProducts];
  int count;
};

/// A thread for each element of the output.
__global__ void __launch_bounds__(kThreads) update_kernel(bool transposed, const __grid_constant__ PlainUpdates task) {
  begin_early_kernel();
  const UpdatedOutput& output = task.output;
  const std::int64_t token = thread_index() / output.features;
  const std::int64_t feature = thread_index() % output.features;
  if (token >= output.tokens) return;
  float total = 0.0F;
  for (int i = 0; i < task.count; ++i) {
    const RankUpdate& update = task.updates[i];
    const auto* factor = static_cast<const float*>(update.factor) + token * padded_rank(update.rank);
    const auto* weight = static_cast<const float*>(update.weight);
    float sum = 0.0F;
    for (std::int64_t column = 0; column < update.rank; ++column) {
      sum += factor[column] * weight[transposed ? feature * update.rank + column : column * output.features + feature];
    }
    total += keep(update.mask, output.mask_stride, token, feature, sum * output.scale);
  }
  static_cast<float*>(output.values)[token * output.stride + feature] += total;
}

unsigned blocks(std::int64_t threads) {
  return static_cast<unsigned>(divide_up(threads, kThreads));
}

}  // namespace

void rank_product_plain(bool transposed, const ScaledInput& input, std::span<const RankProduct> products,
                        cudaStream_t stream) {
  for (const RankProduct& product : products) {
    const unsigned grid = blocks(input.tokens * lora_rank_stride(product.rank) * 32);
    launch_early(product_kernel, dim3(grid), kThreads, 0, stream, transposed, input, product);
  }
}

void rank_gradient_plain(bool transposed, const ScaledInput& input, std::span<const RankGradient> gradients,
                         cudaStream_t stream) {
  for (const RankGradient& gradient : gradients) {
    launch_early(gradient_kernel, dim3(blocks(input.features * gradient.rank)), kThreads, 0, stream, transposed, input,
                 gradient);
  }
}

void rank_update_plain(bool transposed, const UpdatedOutput& output, std::span<const RankUpdate> updates,
                       cudaStream_t stream) {
  PlainUpdates task{output, {}, static_cast<int>(updates.size())};
  for (std::size_t i = 0; i < updates.size(); ++i) task.updates[i] = updates[i];
  launch_early(update_kernel, dim3(blocks(output.tokens * output.features)), kThreads, 0, stream, transposed, task);
}

}  // namespace qshard::optimized
