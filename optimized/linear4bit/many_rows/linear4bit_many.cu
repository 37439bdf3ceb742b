#include <algorithm>
#include <bit>
#include <limits>

#include "optimized/device/cuda_check.h"
#include "optimized/device/tensor_map.h"
#include "optimized/linear4bit/linear4bit_fused.h"
#include "optimized/linear4bit/many_rows/linear4bit_many.h"
#include "optimized/linear4bit/many_rows/many_rows_dequantizer.cuh"
#include "optimized/linear4bit/many_rows/many_rows_loader.cuh"
#include "optimized/linear4bit/many_rows/many_rows_multiplier.cuh"

namespace qshard::optimized {

namespace {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <typename T, bool kForward>
__device__ __forceinline__ void multiply(const ManyRowsTask& task, const CUtensorMap& weight, const CUtensorMap& input,
                                         const CUtensorMap& output, const unsigned char* room) {
  let_next_kernel_start();
  ManyRowsShared shared{static_cast<std::uint32_t>(__cvta_generic_to_shared(room))};
  asm("" : "+r"(shared.first));  // kept, not computed again
  const ManyRowsLoader<kForward> loader(task, weight, input, shared);
  if (threadIdx.x == kMultipliers) loader.start();
  cluster_meets();
  const int warp = __shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 32, 0);  // known to be uniform
  if (warp < kMultiplierWarps) {
    ManyRowsMultiplier<T, kForward>(task, output, shared).run();
  } else if (warp > kMultiplierWarps) {
    ManyRowsDequantizer<T, kForward>(task, shared).run();
  } else {
    if (threadIdx.x == kMultipliers) loader.run();
    __syncwarp();
  }
  cluster_meets();  // the other thread block arrives at barriers of this one until it is done
}

#endif

template <typename T, bool kForward>
__global__ void __cluster_dims__(kCluster) __launch_bounds__(kThreads, 1)
    many_rows_kernel(const __grid_constant__ ManyRowsTask task, const __grid_constant__ CUtensorMap weight,
                     const __grid_constant__ CUtensorMap input, const __grid_constant__ CUtensorMap output) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char room[];
  multiply<T, kForward>(task, weight, input, output, room);
#else
  __trap();
#endif
}

/// Rows of two-byte elements, by boxes of 64 of them.
CUtensorMap matrix_map(const void* base, std::int64_t width, std::int64_t rows, std::int64_t stride, int box_rows) {
  return byte_tensor_map(static_cast<const std::uint8_t*>(base), {width * 2, rows}, {stride * 2}, {kStep * 2, box_rows},
                         CU_TENSOR_MAP_SWIZZLE_128B);
}

constexpr std::int64_t kDone = 32;  // the first of these counts, 128 bytes behind that of the pieces taken

std::size_t count_bytes(const Linear4bit& layer) {
  const std::int64_t boxes = block_count(layer.out_features, kBox) * block_count(layer.in_features, kBox);
  return static_cast<std::size_t>(kDone + boxes) * sizeof(unsigned);
}

int cluster_count() {
  return device_attribute(cudaDevAttrMultiProcessorCount) / kCluster;
}

/// The workspace: the counts, where cuBLASLt would have its own, then the weight.
template <typename T, bool kForward>
void launch(const Linear4bit& layer, const MatmulShape& shape, const void* in, void* out, void* workspace,
            cudaStream_t stream) {
  auto* const counts = static_cast<unsigned*>(workspace);
  void* const dequantized = static_cast<std::byte*>(workspace) + kMatmulWorkspaceBytes;
  const ManyRowsTask task{layer.weight.codes,
                          BlockScales(layer.weight),
                          CodebookValues(layer.weight.quant_type),
                          std::countr_zero(static_cast<unsigned>(layer.weight.blocksize)),
                          static_cast<int>(layer.out_features),
                          static_cast<int>(layer.in_features),
                          dequantized,
                          counts,
                          counts + kDone,
                          static_cast<int>(block_count(shape.inner, kStep)),
                          static_cast<int>(block_count(shape.rows, kTileRows)),
                          static_cast<int>(block_count(shape.columns, kClusterColumns))};
  const CUtensorMap weight = matrix_map(dequantized, layer.in_features, layer.out_features, layer.in_features,
                                        kForward ? kTileColumns : kStep);
  const CUtensorMap input = matrix_map(in, shape.inner, shape.rows, shape.a_stride, kTileRows / kCluster);
  const CUtensorMap output = matrix_map(out, shape.columns, shape.rows, shape.c_stride, ManyRowsShared::kOutputRows);
  const auto kernel = many_rows_kernel<T, kForward>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, ManyRowsShared::kBytes));
  QSHARD_CUDA_CHECK(cudaMemsetAsync(counts, 0, count_bytes(layer), stream));
  kernel<<<kCluster * cluster_count(), kThreads, ManyRowsShared::kBytes, stream>>>(task, weight, input, output);
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

bool many_rows_takes(const Linear4bit& layer, const MatmulShape& shape) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max() / 2;
  return has_warpgroups() && layer.dtype != DType::f32 && layer.weight.blocksize >= kStep &&
         std::max({shape.rows, shape.columns, shape.inner}) <= kMost && shape.a_stride % 8 == 0 &&
         shape.c_stride % 8 == 0 && count_bytes(layer) <= kMatmulWorkspaceBytes &&
         block_count(shape.rows, kTileRows) * block_count(shape.columns, kClusterColumns) <= kMost;
}

// In units of the time that dequantizing the whole weight first takes, which is about that of a product over 256 rows;
// fitted to the linear layers of Llama models on an H200.
bool many_rows_pays(const MatmulShape& shape) {
  constexpr double kEqualRows = 256;
  constexpr double kSlowerBeside = 1.9;  // dequantizes this kernel, where it is what the time goes to
  constexpr double kSlowerApart = 1.03;  // is the product of cuBLASLt
  const std::int64_t column_tiles = block_count(shape.columns, kClusterColumns);
  const std::int64_t tiles = block_count(shape.rows, kTileRows) * column_tiles;
  const std::int64_t tiles_with_room = block_count(tiles, cluster_count()) * cluster_count();
  const double beside =
      std::max(kSlowerBeside, static_cast<double>(tiles_with_room) / static_cast<double>(column_tiles));
  return beside < 1 + kSlowerApart * static_cast<double>(shape.rows) / kEqualRows;
}

void linear4bit_many(const Linear4bit& layer, const MatmulShape& shape, const void* in, void* out, void* workspace,
                     cudaStream_t stream) {
  const auto run = layer.dtype == DType::bf16
                       ? (shape.b_transposed ? launch<__nv_bfloat16, true> : launch<__nv_bfloat16, false>)
                       : (shape.b_transposed ? launch<__half, true> : launch<__half, false>);
  run(layer, shape, in, out, workspace, stream);
}

}  // namespace qshard::optimized
