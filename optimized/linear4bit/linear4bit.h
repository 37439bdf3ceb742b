#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"
#include "optimized/device_weight4bit.h"
#include "optimized/matmul.h"

namespace qshard::optimized {

/// Up to this many rows the fused kernels run, which never write the dequantized weight (f16 and bf16 only).
inline constexpr std::int64_t kMostFusedRows = 64;

/// A linear layer with a frozen 4-bit weight [out_features, in_features] over `rows` rows of activations.
struct Linear4bit {
  DeviceWeight4bit weight;  // elements = out_features * in_features
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;  // a multiple of weight.blocksize
  DType dtype = DType::bf16;     // of the activations and of the product: f32, f16 or bf16
};

/// Device memory that linear4bit() and linear4bit_input_gradient() need for up to `rows` rows, in bytes: room for the
/// dequantized weight and cuBLASLt, or for partial sums.
std::size_t linear4bit_workspace_bytes(const Linear4bit& layer, std::int64_t rows);

/// y = x W^T: x [rows, in_features], y [rows, out_features], row-major with x_stride and y_stride elements from one row
/// to the next; both in layer.dtype and aligned to their element.
///
/// rows <= kMostFusedRows in f16 and bf16: one pass over the packed weight. The codebook is rounded to layer.dtype, the
/// products are exact, each block's sum is accumulated in float and multiplied by its absmax in float. The weight bytes
/// are read once: 0.516 an element (nested blocks of 64). Otherwise the product is that of the bits of dequantize(),
/// which go to the workspace: on Hopper, where it pays, in the kernel that multiplies them (linear4bit_many.h); else
/// before cuBLASLt does the product.
///
/// workspace: linear4bit_workspace_bytes(layer, rows), aligned to 256 bytes. Everything is ordered with `stream` and
/// may be captured into a graph; nothing is allocated and nothing synchronized. Run-to-run deterministic. Throws
/// Error(bad_input) for bad sizes, strides, pointers or too small a workspace and Error(rank_failed) when a launch
/// fails.
void linear4bit(MatmulPlans& plans, const Linear4bit& layer, const void* x, std::int64_t x_stride, std::int64_t rows,
                void* y, std::int64_t y_stride, void* workspace, std::size_t workspace_bytes, cudaStream_t stream);

/// The gradient with respect to the input: dx = dy W, dy [rows, out_features], dx [rows, in_features]. Always the
/// product of the bits of dequantize(). The rest as above.
void linear4bit_input_gradient(MatmulPlans& plans, const Linear4bit& layer, const void* dy, std::int64_t dy_stride,
                               std::int64_t rows, void* dx, std::int64_t dx_stride, void* workspace,
                               std::size_t workspace_bytes, cudaStream_t stream);

}  // namespace qshard::optimized
