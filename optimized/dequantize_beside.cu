#include <bit>

#include "optimized/cuda_check.h"
#include "optimized/dequantize_slice.h"
#include "optimized/slice_layout.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr std::size_t kMoreThanHalf = 120 << 10;  // of a multiprocessor's shared memory: one thread block on each

/// A piece on its way: its codes, and what this lane's scale is decoded from.
template <typename T>
struct LoadedPiece {
  WarpCodes<T, kPieceChunks> codes;
  float absmax;  // nested: of the absmax code's block
  std::uint8_t absmax_code = 0;

  __device__ __forceinline__ LoadedPiece(const std::uint8_t* packed, const BlockScales& scales, int block_shift,
                                         std::int64_t first)
      : codes(packed, first) {
    const std::int64_t block = lane_block(first, kPieceElements, block_shift);
    if (scales.absmax != nullptr) {
      absmax = __ldg(scales.absmax + block);
    } else {
      absmax = __ldg(scales.nested_absmax + block / kNestedBlocksize);
      absmax_code = __ldg(scales.absmax_codes + block);
    }
  }
};

/// The place of a warp's piece, and steps from one to the next without a division.
struct Place {
  std::uint32_t row;
  std::uint32_t piece;

  __device__ __forceinline__ Place(std::uint32_t index, std::uint32_t a_row)
      : row(index / a_row), piece(index % a_row) {}

  __device__ __forceinline__ Place after(const Place& step, std::uint32_t a_row) const {
    Place next = *this;
    next.row += step.row;
    next.piece += step.piece;
    if (next.piece >= a_row) {
      next.piece -= a_row;
      ++next.row;
    }
    return next;
  }
};

/// The pieces of full length. Each warp loads its next piece before it rebuilds this one, so that the few
/// multiprocessors have enough bytes in flight; the nested map is in shared memory, so that no scale waits for memory
/// twice.
template <typename T>
__device__ void rebuild_pieces(const std::uint8_t* codes, const BlockScales& scales, const float* map, float entry,
                               int block_shift, const SliceLayout& slice, std::uint32_t index, std::uint32_t step,
                               T* out) {
  const auto a_row = static_cast<std::uint32_t>(slice.columns / kPieceElements);
  if (a_row == 0) return;
  const bool nested = scales.absmax == nullptr;
  const float offset = nested ? __ldg(scales.offset) : 0.0F;
  const Place stride(step, a_row);
  const auto first_of = [&](const Place& place) {
    return slice.element(place.row, static_cast<std::int64_t>(place.piece) * kPieceElements);
  };
  Place place(index, a_row);
  if (place.row >= slice.rows) return;
  LoadedPiece<T> piece(codes, scales, block_shift, first_of(place));
  for (;;) {
    const Place next_place = place.after(stride, a_row);
    const bool more = next_place.row < slice.rows;
    const LoadedPiece<T> next(codes, scales, block_shift, first_of(more ? next_place : place));
    const float scale = nested ? __fadd_rn(multiply_ftz(map[piece.absmax_code], piece.absmax), offset) : piece.absmax;
    T* piece_out = out + place.row * slice.columns + static_cast<std::int64_t>(place.piece) * kPieceElements;
    rebuild(piece.codes, scale, entry, block_shift, first_of(place), piece_out);
    if (!more) return;
    piece = next;
    place = next_place;
  }
}

/// What is left at the rows' ends, chunk by chunk.
template <typename T>
__device__ void rebuild_ends(const std::uint8_t* codes, const BlockScales& scales, float entry, int block_shift,
                             const SliceLayout& slice, std::uint32_t index, std::uint32_t step, T* out) {
  const std::int64_t begin = slice.columns / kPieceElements * kPieceElements;
  for (std::int64_t row = index; row < slice.rows; row += step) {
    for (std::int64_t column = begin; column < slice.columns; column += kChunkElements<T>) {
      rebuild_warp<T, 1>(codes, scales, entry, block_shift, slice.element(row, column),
                         out + row * slice.columns + column);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    beside_kernel(const std::uint8_t* codes, BlockScales scales, const __grid_constant__ CodebookValues codebook,
                  int block_shift, SliceLayout slice, T* out) {
  __shared__ float map[256];
  if (scales.absmax == nullptr && threadIdx.x < 256) map[threadIdx.x] = __ldg(scales.nested_map + threadIdx.x);
  __syncthreads();
  const float entry = codebook.value[threadIdx.x % 16];
  const std::uint32_t index = blockIdx.x * kWarps + threadIdx.x / 32;
  const std::uint32_t step = gridDim.x * kWarps;
  rebuild_pieces(codes, scales, map, entry, block_shift, slice, index, step, out);
  rebuild_ends(codes, scales, entry, block_shift, slice, index, step, out);
}

template <typename T>
void launch(const DeviceWeight4bit& weight, const WeightSlice& slice, void* out, int multiprocessors,
            cudaStream_t stream) {
  cudaLaunchAttribute pairs{};
  pairs.id = cudaLaunchAttributeClusterDimension;
  pairs.val.clusterDim = {2, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(multiprocessors);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = kMoreThanHalf;
  config.stream = stream;
  config.attrs = &pairs;
  config.numAttrs = 1;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(beside_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kMoreThanHalf));
  const int block_shift = std::countr_zero(static_cast<unsigned>(weight.blocksize));
  QSHARD_CUDA_CHECK(cudaLaunchKernelEx(&config, beside_kernel<T>, weight.codes, BlockScales(weight),
                                       CodebookValues(weight.quant_type), block_shift, SliceLayout(slice),
                                       static_cast<T*>(out)));
}

}  // namespace

void dequantize_beside(const DeviceWeight4bit& weight, const WeightSlice& slice, DType dtype, void* out,
                       int multiprocessors, cudaStream_t stream) {
  if (dtype == DType::f16) {
    launch<__half>(weight, slice, out, multiprocessors, stream);
  } else {
    launch<__nv_bfloat16>(weight, slice, out, multiprocessors, stream);
  }
}

}  // namespace qshard::optimized
