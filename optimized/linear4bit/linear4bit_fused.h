#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "optimized/linear4bit/linear4bit.h"

namespace qshard::optimized {

/// Device memory for the partial sums of linear4bit_fused(), in bytes; 0 where one pass needs none.
std::size_t fused_workspace_bytes(const Linear4bit& layer, std::int64_t rows);

/// linear4bit() for 1 to kMostFusedRows rows in f16 or bf16; x aligned to 16 bytes and x_stride a multiple of 8. The
/// arguments are checked by linear4bit().
void linear4bit_fused(const Linear4bit& layer, const void* x, std::int64_t x_stride, std::int64_t rows, void* y,
                      std::int64_t y_stride, void* workspace, cudaStream_t stream);

/// Up to this many rows linear4bit_few_rows() takes: 4, or none where blocks are of 32 or the
/// current device has too little shared memory.
std::int64_t most_few_rows(const Linear4bit& layer);

/// The same for most_few_rows(layer) rows at most, by linear4bit_few_rows_tma() where that takes the layer; one launch,
/// no workspace. Otherwise 72 KiB of shared memory a thread block.
void linear4bit_few_rows(const Linear4bit& layer, const void* x, std::int64_t x_stride, std::int64_t rows, void* y,
                         std::int64_t y_stride, cudaStream_t stream);

/// Whether linear4bit_few_rows_tma() takes the layer on the current device: a Hopper GPU, in_features a multiple of
/// 256, out_features below 2^30 and blocks of 64 or more.
bool few_rows_tma_takes(const Linear4bit& layer);

/// linear4bit_few_rows() with the weight copied by the tensor memory accelerator. The launch may begin while the
/// stream's earlier kernel ends: it reads and writes nothing before that.
void linear4bit_few_rows_tma(const Linear4bit& layer, const void* x, std::int64_t x_stride, std::int64_t rows, void* y,
                             std::int64_t y_stride, cudaStream_t stream);

/// Whether the current device has Hopper's warpgroup instructions.
bool has_warpgroups();

/// Whether linear4bit_warpgroup() takes the layer on the current device: a Hopper GPU, blocks of 64 or more, and
/// out_features below 2^30.
bool takes_warpgroups(const Linear4bit& layer);

/// Device memory that linear4bit_warpgroup() needs, in bytes.
std::size_t warpgroup_workspace_bytes(const Linear4bit& layer, std::int64_t rows);

/// linear4bit() for 1 to kMostFusedRows rows in f16 or bf16; x of any alignment and stride. Two launches: x is laid out
/// for the matrix instructions first.
void linear4bit_warpgroup(const Linear4bit& layer, const void* x, std::int64_t x_stride, std::int64_t rows, void* y,
                          std::int64_t y_stride, void* workspace, cudaStream_t stream);

}  // namespace qshard::optimized
