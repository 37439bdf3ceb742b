#include <algorithm>

#include "core/tensor/weight4bit.h"
#include "optimized/device/early_launch.h"
#include "optimized/double_quant.h"
#include "optimized/nested_codes.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/quantize_tiles.h"
#include "optimized/team_reduce.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kSumTile = kThreads;  // absmax values of a sum, a thread each, where quantize_tiles has made none
constexpr int kPerLane = kNestedBlocksize / 32;

/// A thread's share of the sums: quads, kThreads apart, whose loads are under way together, and one of the last three.
/// The order of addition depends on `count` alone.
__device__ __forceinline__ double sum_of_own(const float* sums, int count) {
  constexpr int kLoads = 6;  // more of them wait for each other, since the compiler lets them share registers
  const int quads = count / 4;
  const auto thread = static_cast<int>(threadIdx.x);
  const float rest = thread < count % 4 ? sums[4 * quads + thread] : 0.0F;
  double sum = 0.0;
#pragma unroll 1
  for (int first = 0; first < quads; first += kLoads * kThreads) {
    float4 quad[kLoads] = {};
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int at = first + i * kThreads + thread;
      if (at < quads) quad[i] = reinterpret_cast<const float4*>(sums)[at];
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) sum += (quad[i].x + quad[i].y) + (quad[i].z + quad[i].w);
  }
  return sum + rest;
}

__global__ void __launch_bounds__(kThreads) sum_kernel(const float* absmax, std::int64_t blocks, float* sums) {
  grid_dependency_synchronize();
  trigger_programmatic_launch_completion();
  const std::int64_t i = std::int64_t{blockIdx.x} * kSumTile + threadIdx.x;
  const float sum = team_reduce<kThreads>(i < blocks ? absmax[i] : 0.0F, Sum());
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

/// A lane's kPerLane values; any from `count` on.
__device__ __forceinline__ void load_values(float (&values)[kPerLane], const float* absmax, int count) {
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

/// Sets the values from `count` on to 0.
__device__ __forceinline__ void clear_behind(float (&values)[kPerLane], int count) {
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    if (i >= count) values[i] = 0.0F;
  }
}

/// The highest bytes of four words, the first one's lowest.
__device__ __forceinline__ std::uint32_t highest_bytes(const std::uint32_t* words) {
  return __byte_perm(__byte_perm(words[0], words[1], 0x0073), __byte_perm(words[2], words[3], 0x0073), 0x5410);
}

/// Codes from the eight highest bits.
__device__ __forceinline__ void store_codes(std::uint8_t* out, const std::uint32_t (&codes)[kPerLane], int count) {
  if (count >= kPerLane && reinterpret_cast<std::uintptr_t>(out) % sizeof(uint2) == 0) {
    *reinterpret_cast<uint2*>(out) = make_uint2(highest_bytes(codes), highest_bytes(codes + 4));
    return;
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    if (i < count) out[i] = static_cast<std::uint8_t>(codes[i] >> 24);
  }
}

struct NestTask {
  const float* absmax;
  std::int64_t blocks;
  const float* sums;
  int sum_count;  // 0: the offset is given
  const float* map;
  const float* given_offset;
  NestedOutput output;
};

/// One warp a nested block of 256 absmax values, eight consecutive ones a lane. The next block's are loaded while this
/// one's codes are found, the first block's behind the tiles' sums, for which everything waits. A multiprocessor has
/// registers for one thread block, so that those that begin early spread over all of them.
__global__ void __launch_bounds__(kThreads) nest_kernel(const __grid_constant__ NestTask task) {
  // The kernel that makes the sums has waited for the map before it let this one begin.
  if (task.given_offset != nullptr) grid_dependency_synchronize();
  __shared__ NestedMap map;
  const bool map_fits = build_nested_map<kThreads>(map, task.map);
  grid_dependency_synchronize();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto nested_blocks = static_cast<int>((task.blocks + kNestedBlocksize - 1) / kNestedBlocksize);
  const auto first_of = [&](int of) { return std::int64_t{of} * kNestedBlocksize + lane * kPerLane; };
  auto nested = static_cast<int>(blockIdx.x + threadIdx.x / 32 * gridDim.x);
  float loaded[kPerLane] = {};
  int loaded_count = 0;
  const auto load = [&] {
    if (nested >= nested_blocks) return;
    loaded_count = static_cast<int>(min(task.blocks - first_of(nested), std::int64_t{kPerLane}));
    load_values(loaded, task.absmax + first_of(nested), loaded_count);
  };
  const double own_sum = sum_of_own(task.sums, task.sum_count);
  load();
  const double sum = team_reduce<kThreads>(own_sum, Sum());
  const float offset =
      task.given_offset != nullptr ? *task.given_offset : static_cast<float>(sum / static_cast<double>(task.blocks));
  if (blockIdx.x == 0 && threadIdx.x == 0) *task.output.offset = offset;

  while (nested < nested_blocks) {
    const int here = nested;
    const int count = loaded_count;
    float values[kPerLane];
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) values[i] = __fsub_rn(loaded[i], offset);
    nested += static_cast<int>(gridDim.x) * kWarps;
    load();
    if (count < kPerLane) clear_behind(values, count);
    std::uint32_t codes[kPerLane];
    const float largest = nested_codes(map, map_fits, values, codes);
    if (lane == 0) task.output.nested_absmax[here] = largest;
    store_codes(task.output.absmax_codes + first_of(here), codes, count);
  }
}

/// The workspace: sums behind the absmax values that quantize_nested() keeps there.
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

/// One thread block a multiprocessor, where there are as many nested blocks.
void launch_nest(const NestTask& task, cudaStream_t stream) {
  const int processors = device_attribute(cudaDevAttrMultiProcessorCount);
  const std::int64_t grid = std::min<std::int64_t>(processors, block_count(task.blocks, kNestedBlocksize));
  launch_early(nest_kernel, dim3(static_cast<unsigned>(grid)), kThreads, 0, stream, task);
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
  const int sums = given_offset == nullptr ? static_cast<int>(block_count(blocks, kSumTile)) : 0;
  if (sums > 0) {
    launch_early(sum_kernel, dim3(sums), kThreads, 0, stream, absmax, blocks, parts.sums);
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
  const int sums = given_offset == nullptr ? static_cast<int>(block_count(elements, kQuantizeTile)) : 0;
  quantize_tiles(weight, dtype, elements, quant_type, blocksize, codes, parts.absmax, sums > 0 ? parts.sums : nullptr,
                 stream);
  launch_nest({parts.absmax, blocks, parts.sums, sums, nested_map, given_offset, output}, stream);
}

}  // namespace qshard::optimized
