#include <algorithm>
#include <cfloat>

#include "core/tensor/weight4bit.h"
#include "optimized/device/early_launch.h"
#include "optimized/device_math.cuh"
#include "optimized/double_quant.h"
#include "optimized/dynamic_map_search.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/quantize_tiles.h"

namespace qshard::optimized {

namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFU;
constexpr int kMostThreads = 1024;
constexpr int kLargestGrid = 264;  // two thread blocks on each of the H200's multiprocessors: each adds all the sums
constexpr int kSumTile = 1024;     // absmax values of a partial sum, a thread each, where quantize_tiles has made none
constexpr int kPerLane = kNestedBlocksize / 32;

/// The mean from partial sums, by every thread block for itself; the order of summation depends on `count` and kThreads
/// alone.
template <int kThreads>
__device__ __forceinline__ float mean_of_sums(const float* sums, std::int64_t count, std::int64_t values) {
  __shared__ double warp_sums[kThreads / 32];
  double sum = 0.0;
  const std::int64_t quads = count / 4;
#pragma unroll 4
  for (std::int64_t i = threadIdx.x; i < quads; i += kThreads) {
    const float4 quad = reinterpret_cast<const float4*>(sums)[i];
    sum += static_cast<double>(quad.x) + quad.y + (static_cast<double>(quad.z) + quad.w);
  }
  if (threadIdx.x < count % 4) sum += sums[4 * quads + threadIdx.x];
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0.0;
  for (const double part : warp_sums) sum += part;
  return static_cast<float>(sum / static_cast<double>(values));
}

__global__ void __launch_bounds__(kSumTile) sum_kernel(const float* absmax, std::int64_t blocks, float* sums) {
  grid_dependency_synchronize();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kSumTile + threadIdx.x;
  float sum = i < blocks ? absmax[i] : 0.0F;
  __shared__ float warp_sums[kSumTile / 32];
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  sum = 0.0F;
  for (const float part : warp_sums) sum += part;
  sums[blockIdx.x] = sum;
}

/// A lane's kPerLane values; any from `count` on.
__device__ __forceinline__ void load_values(float (&values)[kPerLane], const float* absmax, std::int64_t count) {
  if (count >= kPerLane && reinterpret_cast<std::uintptr_t>(absmax) % sizeof(float4) == 0) {
#pragma unroll
    for (int i = 0; i < kPerLane; i += 4) {
      const float4 quad = *reinterpret_cast<const float4*>(absmax + i);
      values[i] = quad.x;
      values[i + 1] = quad.y;
      values[i + 2] = quad.z;
      values[i + 3] = quad.w;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    if (i < count) values[i] = absmax[i];
  }
}

__device__ __forceinline__ void store_codes(std::uint8_t* out, const std::uint32_t (&codes)[kPerLane],
                                            std::int64_t count) {
  if (count >= kPerLane && reinterpret_cast<std::uintptr_t>(out) % sizeof(uint2) == 0) {
    *reinterpret_cast<uint2*>(out) = make_uint2(codes[0] | codes[1] << 8 | codes[2] << 16 | codes[3] << 24,
                                                codes[4] | codes[5] << 8 | codes[6] << 16 | codes[7] << 24);
    return;
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    if (i < count) out[i] = static_cast<std::uint8_t>(codes[i]);
  }
}

struct NestTask {
  const float* absmax;
  std::int64_t blocks;
  const float* sums;
  std::int64_t sum_count;
  const float* map;
  const float* given_offset;
  NestedOutput output;
};

/// One warp a nested block of 256 absmax values, eight consecutive ones a lane.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) nest_kernel(const __grid_constant__ NestTask task) {
  grid_dependency_synchronize();
  __shared__ SearchTree tree;
  build_tree<kThreads>(tree, task.map);
  constexpr int kWarps = kThreads / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t nested_blocks = (task.blocks + kNestedBlocksize - 1) / kNestedBlocksize;
  std::int64_t nested = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const auto first_of = [&](std::int64_t of) { return of * kNestedBlocksize + lane * kPerLane; };
  float values[kPerLane] = {};
  const auto load_own = [&] {
    if (nested < nested_blocks) load_values(values, task.absmax + first_of(nested), task.blocks - first_of(nested));
  };
  load_own();
  __syncthreads();
  const float offset = task.given_offset != nullptr ? *task.given_offset
                                                    : mean_of_sums<kThreads>(task.sums, task.sum_count, task.blocks);
  if (blockIdx.x == 0 && threadIdx.x == 0) *task.output.offset = offset;

  while (nested < nested_blocks) {
    const std::int64_t first = first_of(nested);
    const std::int64_t count = task.blocks - first;
    float largest = -FLT_MAX;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      values[i] = i < count ? __fsub_rn(values[i], offset) : 0.0F;
      largest = max_ftz(largest, fabsf(values[i]));
    }
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      largest = max_ftz(largest, __shfl_xor_sync(kAllLanes, largest, lanes));
    }
    if (lane == 0) task.output.nested_absmax[nested] = largest;
    const float reciprocal = reciprocal_ftz(largest);
    std::uint32_t codes[kPerLane];
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) codes[i] = nearest_code(tree, multiply_ftz(values[i], reciprocal));
    store_codes(task.output.absmax_codes + first, codes, count);
    nested += std::int64_t{gridDim.x} * kWarps;
    load_own();
  }
}

/// The workspace: partial sums behind the absmax values that quantize_nested() keeps there.
struct Workspace {
  float* absmax;
  float* sums;

  Workspace(void* memory, std::int64_t blocks)
      : absmax(static_cast<float*>(memory)), sums(absmax + (blocks + 3) / 4 * 4) {}
};

void check_nested(std::int64_t blocks, const float* nested_map, const NestedOutput& output, const void* workspace,
                  std::size_t workspace_bytes) {
  check_at_least(blocks, 1, "the number of absmax values to quantize");
  check_pointer(nested_map, alignof(float), "the nested map");
  check_pointer(output.absmax_codes, 1, "the output for absmax codes");
  check_pointer(output.nested_absmax, alignof(float), "the output for nested absmax");
  check_pointer(output.offset, alignof(float), "the output for the nested offset");
  check_pointer(workspace, 16, "the workspace of nested quantization");
  check_at_least(static_cast<std::int64_t>(workspace_bytes), static_cast<std::int64_t>(nested_workspace_bytes(blocks)),
                 "the workspace of nested quantization, in bytes,");
}

/// Thread blocks of as few threads as kLargestGrid allows, so that few nested blocks use many multiprocessors, too.
template <int kThreads = 256>
void launch_nest(const NestTask& task, cudaStream_t stream) {
  const std::int64_t grid = block_count(block_count(task.blocks, kNestedBlocksize), kThreads / 32);
  if constexpr (kThreads < kMostThreads) {
    if (grid > kLargestGrid) return launch_nest<2 * kThreads>(task, stream);
  }
  launch_early(nest_kernel<kThreads>, dim3(static_cast<unsigned>(std::min<std::int64_t>(kLargestGrid, grid))), kThreads,
               0, stream, task);
}

}  // namespace

std::size_t nested_workspace_bytes(std::int64_t blocks) {
  check_at_least(blocks, 1, "the number of absmax values to quantize");
  // A tile of 8,192 elements has at least two blocks, a sum tile has 1,024: at most one sum for two blocks.
  return sizeof(float) * static_cast<std::size_t>((blocks + 3) / 4 * 4 + blocks / 2 + 1);
}

void nest_absmax(const float* absmax, std::int64_t blocks, const float* nested_map, const float* given_offset,
                 const NestedOutput& output, void* workspace, std::size_t workspace_bytes, cudaStream_t stream) {
  check_nested(blocks, nested_map, output, workspace, workspace_bytes);
  check_pointer(absmax, alignof(float), "the absmax to quantize");
  const Workspace parts(workspace, blocks);
  const std::int64_t sums = block_count(blocks, kSumTile);
  if (given_offset == nullptr) {
    launch_early(sum_kernel, dim3(static_cast<unsigned>(sums)), kSumTile, 0, stream, absmax, blocks, parts.sums);
  }
  launch_nest({absmax, blocks, parts.sums, sums, nested_map, given_offset, output}, stream);
}

void quantize_nested(const void* weight, DType dtype, std::int64_t elements, QuantType quant_type, int blocksize,
                     std::uint8_t* codes, const float* nested_map, const float* given_offset,
                     const NestedOutput& output, void* workspace, std::size_t workspace_bytes, cudaStream_t stream) {
  check_blocksize(blocksize);
  check_at_least(elements, 1, "the number of elements to quantize");
  const std::int64_t blocks = block_count(elements, blocksize);
  check_nested(blocks, nested_map, output, workspace, workspace_bytes);
  const Workspace parts(workspace, blocks);
  quantize_tiles(weight, dtype, elements, quant_type, blocksize, codes, parts.absmax, parts.sums, stream);
  launch_nest(
      {parts.absmax, blocks, parts.sums, block_count(elements, kQuantizeTile), nested_map, given_offset, output},
      stream);
}

}  // namespace qshard::optimized
