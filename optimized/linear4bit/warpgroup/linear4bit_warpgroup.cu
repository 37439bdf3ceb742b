#include <algorithm>
#include <bit>
#include <limits>

#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/device/tensor_map.h"
#include "optimized/device_math.cuh"
#include "optimized/linear4bit/linear4bit_fused.h"
#include "optimized/linear4bit/warpgroup/packed_input.cuh"
#include "optimized/linear4bit/warpgroup/warpgroup_loader.cuh"
#include "optimized/linear4bit/warpgroup/warpgroup_multiplier.cuh"

namespace qshard::optimized {

namespace {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr int kMultiplierRegisters = 160;  // of a thread
constexpr int kLoaderRegisters = 32;

/// The tables of shared memory, by the multiplying threads.
template <typename T, int kColumnTiles>
__device__ __forceinline__ void fill_tables(const WarpgroupTask<T>& task, const WarpgroupShared<kColumnTiles>& shared) {
  using Shared = WarpgroupShared<kColumnTiles>;
  const bool has_centroid = task.scales.absmax == nullptr && threadIdx.x < 256;
  const float centroid = has_centroid ? __ldg(task.scales.nested_map + threadIdx.x) : 0.0F;
  PairTable(shared.table).fill<T>(task.codebook, kMultipliers);
  if (!has_centroid) return;
#pragma unroll
  for (int i = 0; i < Shared::kMapCopies; i += 4) {
    asm volatile(
        "st.shared.v4.f32 [%0], {%1, %1, %1, %1};" ::"r"(shared.map() + 4 * (threadIdx.x * Shared::kMapCopies + i)),
        "f"(centroid)
        : "memory");
  }
}

template <typename T, int kColumnTiles>
__device__ __forceinline__ void multiply(const WarpgroupTask<T>& task, const CUtensorMap& codes, unsigned char* room) {
  let_next_kernel_start();
  const WarpgroupShared<kColumnTiles> shared{room};
  const int begin = task.split.begin(static_cast<int>(blockIdx.x));
  const int end = task.split.begin(static_cast<int>(blockIdx.x) + 1);
  // A shuffle tells the compiler that all of a warp takes one way.
  if (__shfl_sync(0xFFFFFFFFU, static_cast<int>(threadIdx.x) / 128, 0) < kWarpgroups) {
    Multiplier<T, kColumnTiles> multiplier(task, shared, begin, end);  // asks for its first scales before all else
    fill_tables(task, shared);
    __syncthreads();
    raise_registers<kMultiplierRegisters>();
    multiplier.run();
  } else {
    const Loader<T, kColumnTiles> loader(task, codes, shared, begin, end);
    if (threadIdx.x == kMultipliers) loader.start();
    __syncthreads();
    lower_registers<kLoaderRegisters>();
    if (threadIdx.x == kMultipliers) loader.run();
  }
}

#endif

/// y = x W^T for 5 to 64 rows.
template <typename T, int kColumnTiles>
__global__ void __launch_bounds__(kThreads, 1)
    warpgroup_kernel(const __grid_constant__ WarpgroupTask<T> task, const __grid_constant__ CUtensorMap codes) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char room[];
  multiply<T, kColumnTiles>(task, codes, room);
#else
  __trap();
#endif
}

/// How the work is cut, and where things are in the workspace.
struct Cut {
  WorkSplit split;
  int column_tiles;
  std::size_t packed_bytes;
  std::size_t partial_bytes;
  std::size_t arrival_bytes;

  Cut(const Linear4bit& layer, std::int64_t rows)
      : split(static_cast<int>(block_count(layer.out_features, kTileRows)),
              static_cast<int>(block_count(layer.in_features, kStep)),
              device_attribute(cudaDevAttrMultiProcessorCount)),
        column_tiles(rows <= 8    ? 1
                     : rows <= 16 ? 2
                     : rows <= 32 ? 4
                                  : 8) {
    packed_bytes = static_cast<std::size_t>(split.steps) * kStep * padded_rows() * sizeof(std::uint16_t);
    partial_bytes = static_cast<std::size_t>(split.slots()) * padded_rows() * kTileRows * sizeof(float);
    arrival_bytes = static_cast<std::size_t>(split.tiles) * (kMultiplierWarps) * sizeof(int);
  }

  [[nodiscard]] int padded_rows() const { return 8 * column_tiles; }
};

template <typename T, int kColumnTiles>
void launch_kernel(const WarpgroupTask<T>& task, const CUtensorMap& codes, cudaStream_t stream) {
  constexpr std::uint32_t kShared = WarpgroupShared<kColumnTiles>::kBytes;
  const auto kernel = warpgroup_kernel<T, kColumnTiles>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared));
  launch_early(kernel, dim3(static_cast<unsigned>(task.split.workers)), kThreads, kShared, stream, task, codes);
}

template <typename T>
void launch(const Linear4bit& layer, const void* x, std::int64_t x_stride, std::int64_t rows, void* y,
            std::int64_t y_stride, void* workspace, cudaStream_t stream) {
  const Cut cut(layer, rows);
  auto* arrivals = reinterpret_cast<int*>(static_cast<std::byte*>(workspace) + cut.packed_bytes + cut.partial_bytes);
  const WarpgroupTask<T> task{BlockScales(layer.weight),
                              CodebookValues(layer.weight.quant_type),
                              std::countr_zero(static_cast<unsigned>(layer.weight.blocksize)),
                              static_cast<int>(layer.in_features),
                              static_cast<int>(layer.out_features),
                              static_cast<const T*>(workspace),
                              static_cast<int>(rows),
                              static_cast<T*>(y),
                              y_stride,
                              reinterpret_cast<float*>(static_cast<std::byte*>(workspace) + cut.packed_bytes),
                              arrivals,
                              cut.split,
                              layer.weight.absmax == nullptr && layer.weight.blocksize == kChunk &&
                                  layer.in_features % (4 * kChunk) == 0 &&
                                  reinterpret_cast<std::uintptr_t>(layer.weight.absmax_codes) % 4 == 0};
  const CUtensorMap codes = byte_tensor_map(layer.weight.codes, {layer.in_features / 2, layer.out_features},
                                            {layer.in_features / 2}, {kStep / 2, kTileRows}, CU_TENSOR_MAP_SWIZZLE_64B);
  const auto arrival_count = static_cast<int>(cut.arrival_bytes / sizeof(int));
  const std::int64_t pack_count = std::int64_t{cut.split.steps} * kChunks * kInstructions * cut.padded_rows();
  const auto pack_blocks =
      static_cast<unsigned>(block_count(std::max<std::int64_t>(pack_count, arrival_count), kPackThreads));
  const bool aligned = reinterpret_cast<std::uintptr_t>(x) % sizeof(uint2) == 0 && x_stride % 4 == 0;
  const auto pack = aligned ? pack_kernel<true, T> : pack_kernel<false, T>;
  launch_early(pack, dim3(pack_blocks), kPackThreads, 0, stream, static_cast<const T*>(x), x_stride, task.rows,
               task.in_features, cut.padded_rows(), pack_count, static_cast<uint4*>(workspace), arrivals,
               arrival_count);
  switch (cut.column_tiles) {
    case 1:
      launch_kernel<T, 1>(task, codes, stream);
      break;
    case 2:
      launch_kernel<T, 2>(task, codes, stream);
      break;
    case 4:
      launch_kernel<T, 4>(task, codes, stream);
      break;
    default:
      launch_kernel<T, 8>(task, codes, stream);
  }
}

}  // namespace

bool has_warpgroups() {
  return device_attribute(cudaDevAttrComputeCapabilityMajor) == 9;
}

bool takes_warpgroups(const Linear4bit& layer) {
  constexpr std::int64_t kMostElements = std::int64_t{1} << 44;  // so that all steps of all tiles are an int
  return has_warpgroups() && layer.weight.blocksize >= kChunk &&
         layer.out_features <= std::numeric_limits<std::int32_t>::max() / 2 &&
         layer.out_features * layer.in_features <= kMostElements;
}

std::size_t warpgroup_workspace_bytes(const Linear4bit& layer, std::int64_t rows) {
  const Cut cut(layer, rows);
  return cut.packed_bytes + cut.partial_bytes + cut.arrival_bytes;
}

void linear4bit_warpgroup(const Linear4bit& layer, const void* x, std::int64_t x_stride, std::int64_t rows, void* y,
                          std::int64_t y_stride, void* workspace, cudaStream_t stream) {
  if (layer.dtype == DType::bf16) {
    launch<__nv_bfloat16>(layer, x, x_stride, rows, y, y_stride, workspace, stream);
  } else {
    launch<__half>(layer, x, x_stride, rows, y, y_stride, workspace, stream);
  }
}

}  // namespace qshard::optimized
