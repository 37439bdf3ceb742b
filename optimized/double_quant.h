#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/codebook.h"
#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// Where nested quantization puts its results; device memory.
struct NestedOutput {
  std::uint8_t* absmax_codes = nullptr;  // one a block
  float* nested_absmax = nullptr;        // one for each 256 blocks
  float* offset = nullptr;               // one value
};

/// Device memory that quantize_nested and nest_absmax need for `blocks` absmax values, in bytes.
std::size_t nested_workspace_bytes(std::int64_t blocks);

/// Quantizes `blocks` absmax values to 8 bits: codes[i] is the index in `nested_map` (256 ascending floats in device
/// memory) that bitsandbytes' search finds for (absmax[i] - offset) / nested_absmax[i / 256]. offset: the value at
/// `given_offset` (device memory) where that is not null, else the mean of absmax, summed in an order that depends on
/// `blocks` alone. Equal to the bit to reference::nest_absmax for a given offset.
///
/// workspace: nested_workspace_bytes(blocks), aligned to 16 bytes, contents of no importance. Two launches on `stream`
/// (one with a given offset); nothing is allocated and nothing synchronized. Deterministic. Throws Error(bad_input) for
/// blocks < 1, a null or unaligned pointer or too small a workspace; Error(rank_failed) when a launch fails.
void nest_absmax(const float* absmax, std::int64_t blocks, const float* nested_map, const float* given_offset,
                 const NestedOutput& output, void* workspace, std::size_t workspace_bytes, cudaStream_t stream);

/// quantize() of quantize.h followed by nest_absmax(), reading the weight once: the absmax values go through the
/// workspace, nested_workspace_bytes(ceil(elements / blocksize)), which the L2 cache holds, and are summed on the way.
/// Two launches. The contracts of both hold, but for the order in which a computed offset is summed: it
/// depends on `elements` and `blocksize` alone.
void quantize_nested(const void* weight, DType dtype, std::int64_t elements, QuantType quant_type, int blocksize,
                     std::uint8_t* codes, const float* nested_map, const float* given_offset,
                     const NestedOutput& output, void* workspace, std::size_t workspace_bytes, cudaStream_t stream);

}  // namespace qshard::optimized
