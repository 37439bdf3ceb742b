#include "optimized/linear4bit/linear4bit.h"

#include <algorithm>
#include <limits>

#include "core/base/error.h"
#include "optimized/dequantize.h"
#include "optimized/device/cuda_check.h"
#include "optimized/linear4bit/linear4bit_fused.h"
#include "optimized/linear4bit/many_rows/linear4bit_many.h"

namespace qshard::optimized {

namespace {

constexpr std::size_t kAlignment = 256;

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

bool runs_fused(const Linear4bit& layer, std::int64_t rows) {
  return rows <= kMostFusedRows && layer.dtype != DType::f32 &&
         layer.in_features <= std::numeric_limits<std::int32_t>::max() / 2;
}

void check_layer(const Linear4bit& layer, std::int64_t rows) {
  check_floating(layer.dtype, "the compute dtype of a 4-bit linear layer");
  check_at_least(rows, 1, "the number of rows of a 4-bit linear layer's input");
  check_at_least(layer.out_features, 1, "out_features of a 4-bit linear layer");
  check_at_least(layer.in_features, 1, "in_features of a 4-bit linear layer");
  check_blocksize(layer.weight.blocksize);
  if (layer.in_features % layer.weight.blocksize != 0) {
    fail_input("in_features {} of a 4-bit linear layer is not a multiple of its block size {}", layer.in_features,
               layer.weight.blocksize);
  }
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max() / 64;
  if (layer.out_features > kMost / layer.in_features ||
      rows > kMost / std::max(layer.in_features, layer.out_features)) {
    fail_input("a 4-bit linear layer of [{}, {}] over {} rows overflows 64-bit sizes", layer.out_features,
               layer.in_features, rows);
  }
  if (layer.weight.elements != layer.out_features * layer.in_features) {
    fail_input("a 4-bit linear layer of [{}, {}] has a weight of {} elements", layer.out_features, layer.in_features,
               layer.weight.elements);
  }
}

void check_call(const Linear4bit& layer, std::int64_t rows, const void* in, std::int64_t in_stride,
                std::int64_t in_width, const void* out, std::int64_t out_stride, std::int64_t out_width,
                const void* workspace, std::size_t workspace_bytes) {
  check_layer(layer, rows);
  check_weight(layer.weight);
  check_pointer(in, size_of(layer.dtype), "the input of a 4-bit linear layer");
  check_pointer(out, size_of(layer.dtype), "the output of a 4-bit linear layer");
  check_at_least(in_stride, in_width, "the row stride of a 4-bit linear layer's input");
  check_at_least(out_stride, out_width, "the row stride of a 4-bit linear layer's output");
  check_pointer(workspace, kAlignment, "the workspace of a 4-bit linear layer");
  check_at_least(static_cast<std::int64_t>(workspace_bytes),
                 static_cast<std::int64_t>(linear4bit_workspace_bytes(layer, rows)),
                 "the workspace of a 4-bit linear layer, in bytes,");
}

bool is_aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

/// The workspace of the path through the dequantized weight: cuBLASLt's, then the weight.
void multiply_dequantized(MatmulPlans& plans, const Linear4bit& layer, const MatmulShape& shape, const void* in,
                          void* out, void* workspace, cudaStream_t stream) {
  if (many_rows_takes(layer, shape) && many_rows_pays(shape) && is_aligned(in) && is_aligned(out)) {
    linear4bit_many(layer, shape, in, out, workspace, stream);
    return;
  }
  void* weight = static_cast<std::byte*>(workspace) + kMatmulWorkspaceBytes;
  dequantize(layer.weight, layer.dtype, weight, stream);
  matmul(plans, shape, in, weight, out, workspace, kMatmulWorkspaceBytes, stream);
}

/// The fused kernels read x in 16-byte pieces: an x that is not aligned so is copied to the workspace's end first.
void multiply_fused(const Linear4bit& layer, const void* x, std::int64_t x_stride, std::int64_t rows, void* y,
                    std::int64_t y_stride, void* workspace, cudaStream_t stream) {
  const std::size_t element = size_of(layer.dtype);
  if (rows > most_few_rows(layer) && takes_warpgroups(layer)) {
    linear4bit_warpgroup(layer, x, x_stride, rows, y, y_stride, workspace, stream);
    return;
  }
  if (!is_aligned(x) || x_stride % 8 != 0) {
    void* copy = static_cast<std::byte*>(workspace) + aligned(fused_workspace_bytes(layer, rows));
    const std::size_t width = layer.in_features * element;
    QSHARD_CUDA_CHECK(
        cudaMemcpy2DAsync(copy, width, x, x_stride * element, width, rows, cudaMemcpyDeviceToDevice, stream));
    x = copy;
    x_stride = layer.in_features;
  }
  if (rows <= most_few_rows(layer)) {
    linear4bit_few_rows(layer, x, x_stride, rows, y, y_stride, stream);
  } else {
    linear4bit_fused(layer, x, x_stride, rows, y, y_stride, workspace, stream);
  }
}

}  // namespace

std::size_t linear4bit_workspace_bytes(const Linear4bit& layer, std::int64_t rows) {
  check_layer(layer, rows);
  const std::size_t element = size_of(layer.dtype);
  std::size_t bytes = kMatmulWorkspaceBytes + layer.out_features * layer.in_features * element;
  if (layer.dtype != DType::f32) {
    const std::int64_t fused_rows = std::min(rows, kMostFusedRows);
    bytes = std::max(bytes, aligned(fused_workspace_bytes(layer, fused_rows)) +
                                static_cast<std::size_t>(fused_rows * layer.in_features) * element);
    if (takes_warpgroups(layer)) bytes = std::max(bytes, warpgroup_workspace_bytes(layer, fused_rows));
  }
  return bytes;
}

void linear4bit(MatmulPlans& plans, const Linear4bit& layer, const void* x, std::int64_t x_stride, std::int64_t rows,
                void* y, std::int64_t y_stride, void* workspace, std::size_t workspace_bytes, cudaStream_t stream) {
  check_call(layer, rows, x, x_stride, layer.in_features, y, y_stride, layer.out_features, workspace, workspace_bytes);
  if (runs_fused(layer, rows)) {
    multiply_fused(layer, x, x_stride, rows, y, y_stride, workspace, stream);
    return;
  }
  const MatmulShape shape{rows, layer.out_features, layer.in_features, x_stride, layer.in_features, y_stride,
                          true, layer.dtype};
  multiply_dequantized(plans, layer, shape, x, y, workspace, stream);
}

void linear4bit_input_gradient(MatmulPlans& plans, const Linear4bit& layer, const void* dy, std::int64_t dy_stride,
                               std::int64_t rows, void* dx, std::int64_t dx_stride, void* workspace,
                               std::size_t workspace_bytes, cudaStream_t stream) {
  check_call(layer, rows, dy, dy_stride, layer.out_features, dx, dx_stride, layer.in_features, workspace,
             workspace_bytes);
  const MatmulShape shape{rows,  layer.in_features, layer.out_features, dy_stride, layer.in_features, dx_stride,
                          false, layer.dtype};
  multiply_dequantized(plans, layer, shape, dy, dx, workspace, stream);
}

}  // namespace qshard::optimized
