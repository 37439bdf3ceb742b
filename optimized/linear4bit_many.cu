#include <algorithm>
#include <bit>
#include <limits>

#include "optimized/cuda_check.h"
#include "optimized/early_launch.h"
#include "optimized/linear4bit_fused.h"
#include "optimized/linear4bit_many.h"
#include "optimized/many_rows_loader.cuh"
#include "optimized/many_rows_multiplier.cuh"
#include "optimized/tensor_map.h"

namespace qshard::optimized {

namespace {

constexpr int kSpreadThreads = 256;
constexpr int kSpreadLines = 8;  // of a thread

/// Where the scale of a row goes. The gradient's 64 rows of a step are in the order in which lanes take them: what lane
/// t of a quad needs for a matrix instruction, rows 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 of its 16, is one vector.
template <bool kForward>
__device__ __forceinline__ std::int64_t spread_row(std::int64_t row) {
  if constexpr (kForward) return row;
  return row / 16 * 16 + row % 8 / 2 * 4 + row % 16 / 8 * 2 + row % 2;
}

/// Decodes all scales into their places: a thread those of kSpreadLines lines of one row, or zeros.
template <bool kForward>
__global__ void __launch_bounds__(kSpreadThreads)
    spread_kernel(BlockScales scales, int block_shift, std::int64_t out_features, std::int64_t in_features,
                  SpreadScales layout, float* spread) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  // In this order: whoever starts next may read what the kernels before this one wrote.
  wait_for_earlier_kernels();
  let_next_kernel_start();
#endif
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kSpreadThreads + threadIdx.x;
  if (row >= layout.rows) return;
  const std::int64_t blocks_a_row = in_features >> block_shift;
#pragma unroll
  for (int i = 0; i < kSpreadLines; ++i) {
    const std::int64_t line = static_cast<std::int64_t>(blockIdx.y) * kSpreadLines + i;
    if (line >= layout.lines) return;
    const std::int64_t column = line * kStep;
    const bool inside = row < out_features && column < in_features;
    spread[line * layout.rows + spread_row<kForward>(row)] =
        inside ? scales[row * blocks_a_row + (column >> block_shift)] : 0.0F;
  }
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr int kMultiplierRegisters = 240;  // of a thread
constexpr int kLoaderRegisters = 24;

template <typename T, bool kForward>
__device__ __forceinline__ void multiply(const ManyRowsTask& task, const CUtensorMap& codes, const CUtensorMap& input,
                                         const CUtensorMap& output, const unsigned char* room) {
  let_next_kernel_start();
  ManyRowsShared shared{static_cast<std::uint32_t>(__cvta_generic_to_shared(room))};
  asm("" : "+r"(shared.first));  // kept, not computed again
  const ManyRowsLoader<kForward> loader(task, codes, input, shared);
  if (threadIdx.x == kMultipliers) loader.start();
  FloatPairTable::fill(shared.table(), task.codebook);
  cluster_meets();
  const int warp = __shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 32, 0);  // known to be uniform
  if (warp < kMultiplierWarps) {
    raise_registers<kMultiplierRegisters>();
    ManyRowsMultiplier<T, kForward>(task, output, shared).run();
  } else {
    lower_registers<kLoaderRegisters>();
    if (threadIdx.x == kMultipliers) loader.run();
    __syncwarp();
  }
  cluster_meets();  // the other thread block arrives at barriers of this one until it is done
}

#endif

template <typename T, bool kForward>
__global__ void __cluster_dims__(kCluster) __launch_bounds__(kThreads, 1)
    many_rows_kernel(const __grid_constant__ ManyRowsTask task, const __grid_constant__ CUtensorMap codes,
                     const __grid_constant__ CUtensorMap input, const __grid_constant__ CUtensorMap output) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char room[];
  multiply<T, kForward>(task, codes, input, output, room);
#else
  __trap();
#endif
}

template <bool kForward>
void spread(const Linear4bit& layer, const SpreadScales& layout, float* scales, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(block_count(layout.rows, kSpreadThreads)),
                  static_cast<unsigned>(block_count(layout.lines, kSpreadLines)));
  launch_early(spread_kernel<kForward>, grid, kSpreadThreads, 0, stream, BlockScales(layer.weight),
               std::countr_zero(static_cast<unsigned>(layer.weight.blocksize)), layer.out_features, layer.in_features,
               layout, scales);
}

/// Rows of two-byte elements, by boxes of 64 of them.
CUtensorMap matrix_map(const void* base, std::int64_t width, std::int64_t rows, std::int64_t stride, int box_rows) {
  return byte_tensor_map(static_cast<const std::uint8_t*>(base), {width * 2, rows}, {stride * 2}, {kStep * 2, box_rows},
                         CU_TENSOR_MAP_SWIZZLE_128B);
}

template <typename T, bool kForward>
void launch(const Linear4bit& layer, const MatmulShape& shape, const void* in, void* out, float* scales,
            cudaStream_t stream) {
  const SpreadScales layout(layer.out_features, layer.in_features);
  spread<kForward>(layer, layout, scales, stream);
  const ManyRowsTask task{scales,
                          layout,
                          CodebookValues(layer.weight.quant_type),
                          static_cast<int>(2 * block_count(shape.inner, 2 * kStep)),
                          static_cast<int>(block_count(shape.rows, kTileRows)),
                          static_cast<int>(block_count(shape.columns, kClusterColumns))};
  const std::int64_t row_bytes = layer.in_features / 2;
  const CUtensorMap codes = kForward ? byte_tensor_map(layer.weight.codes, {row_bytes, layer.out_features}, {row_bytes},
                                                       {kStep / 2, kTileColumns}, CU_TENSOR_MAP_SWIZZLE_NONE)
                                     : byte_tensor_map(layer.weight.codes, {row_bytes, layer.out_features}, {row_bytes},
                                                       {kTileColumns / 2, kStep}, CU_TENSOR_MAP_SWIZZLE_64B);
  const CUtensorMap input = matrix_map(in, shape.inner, shape.rows, shape.a_stride, kTileRows / kCluster);
  const CUtensorMap output = matrix_map(out, shape.columns, shape.rows, shape.c_stride, ManyRowsShared::kOutputRows);
  const auto kernel = many_rows_kernel<T, kForward>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, ManyRowsShared::kBytes));
  const int clusters = std::min(device_attribute(cudaDevAttrMultiProcessorCount) / kCluster, task.tiles());
  launch_early(kernel, dim3(static_cast<unsigned>(clusters * kCluster)), kThreads, ManyRowsShared::kBytes, stream, task,
               codes, input, output);
}

}  // namespace

bool many_rows_takes(const Linear4bit& layer, const MatmulShape& shape) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max() / 2;
  return has_warpgroups() && layer.dtype != DType::f32 && layer.weight.blocksize >= kStep &&
         std::max({shape.rows, shape.columns, shape.inner}) <= kMost && shape.a_stride % 8 == 0 &&
         shape.c_stride % 8 == 0 &&
         block_count(shape.rows, kTileRows) * block_count(shape.columns, kClusterColumns) <= kMost;
}

// Measured on an H100 (132 multiprocessors) with 28672 x 8192 and 8192 x 28672. Longer products hide more of the
// dequantization, or lose less by it, than this kernel loses to cuBLAS: 17 % forward, 25 % for the gradient.
bool many_rows_pays(const MatmulShape& shape) {
  constexpr std::int64_t kMostForward = 1024;
  constexpr std::int64_t kMostGradient = 512;
  constexpr double kLeastUse = 0.6;  // of the multiprocessors
  if (shape.rows > (shape.b_transposed ? kMostForward : kMostGradient)) return false;
  const std::int64_t tiles = block_count(shape.rows, kTileRows) * block_count(shape.columns, kClusterColumns);
  const std::int64_t clusters = device_attribute(cudaDevAttrMultiProcessorCount) / kCluster;
  return static_cast<double>(tiles) >= kLeastUse * static_cast<double>(block_count(tiles, clusters) * clusters);
}

std::size_t many_rows_workspace_bytes(const Linear4bit& layer) {
  return static_cast<std::size_t>(SpreadScales(layer.out_features, layer.in_features).count()) * sizeof(float);
}

void linear4bit_many(const Linear4bit& layer, const MatmulShape& shape, const void* in, void* out, void* workspace,
                     cudaStream_t stream) {
  auto* scales = static_cast<float*>(workspace);
  const auto run = layer.dtype == DType::bf16
                       ? (shape.b_transposed ? launch<__nv_bfloat16, true> : launch<__nv_bfloat16, false>)
                       : (shape.b_transposed ? launch<__half, true> : launch<__half, false>);
  run(layer, shape, in, out, scales, stream);
}

}  // namespace qshard::optimized
