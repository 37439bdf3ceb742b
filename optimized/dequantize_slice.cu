#include <bit>

#include "optimized/cuda_check.h"
#include "optimized/dequantize_slice.h"
#include "optimized/slice_layout.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 6;  // on a multiprocessor: all the threads that every GPU's can hold

/// One piece a warp.
template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks)
    slice_kernel(const std::uint8_t* codes, BlockScales scales, const __grid_constant__ CodebookValues codebook,
                 int block_shift, SliceLayout slice, T* out) {
  const std::uint32_t piece = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  const auto a_row = static_cast<std::uint32_t>(slice.pieces_a_row());
  const std::int64_t row = piece / a_row;
  const std::int64_t column = static_cast<std::int64_t>(piece % a_row) * kPieceElements;
  if (row >= slice.rows) return;
  const float entry = codebook.value[threadIdx.x % 16];
  const std::int64_t first = slice.element(row, column);
  T* piece_out = out + row * slice.columns + column;
  if (column + kPieceElements <= slice.columns) {
    rebuild_warp<T, kPieceChunks>(codes, scales, entry, block_shift, first, piece_out);
    return;
  }
  for (std::int64_t i = 0; column + i < slice.columns; i += kChunkElements<T>) {
    rebuild_warp<T, 1>(codes, scales, entry, block_shift, first + i, piece_out + i);
  }
}

template <typename T>
void launch(const DeviceWeight4bit& weight, const WeightSlice& slice, void* out, cudaStream_t stream) {
  const SliceLayout layout(slice);
  const auto blocks = static_cast<unsigned>(block_count(layout.rows * layout.pieces_a_row(), kThreads / 32));
  const int block_shift = std::countr_zero(static_cast<unsigned>(weight.blocksize));
  slice_kernel<T><<<blocks, kThreads, 0, stream>>>(weight.codes, BlockScales(weight), CodebookValues(weight.quant_type),
                                                   block_shift, layout, static_cast<T*>(out));
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void dequantize_slice(const DeviceWeight4bit& weight, const WeightSlice& slice, DType dtype, void* out,
                      cudaStream_t stream) {
  if (dtype == DType::f16) {
    launch<__half>(weight, slice, out, stream);
  } else {
    launch<__nv_bfloat16>(weight, slice, out, stream);
  }
}

}  // namespace qshard::optimized
