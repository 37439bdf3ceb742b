#pragma once

#include "optimized/attention/attention_launch.cuh"
#include "optimized/attention/warpgroup/warpgroup_stages.cuh"
#include "optimized/device/early_launch.h"
#include "optimized/device/tensor_map.h"

namespace qshard::optimized::warpgroup_attention {

inline CUtensorMap head_map(const void* data, std::int64_t heads, std::int64_t head_dim, std::int64_t tokens,
                            std::int64_t stride) {
  return byte_tensor_map(static_cast<const std::uint8_t*>(data), {2 * head_dim, heads, tokens},
                         {2 * head_dim, 2 * stride}, {128, 1, kTileTokens}, CU_TENSOR_MAP_SWIZZLE_128B);
}

/// Of a forward pass, which has no dout, the last one is that of q.
inline TensorMaps tensor_maps(const AttentionShape& shape, std::int64_t tokens, const AttentionTensors& tensors) {
  const CUtensorMap q = head_map(tensors.q, shape.heads, shape.head_dim, tokens, shape.q_stride);
  return {q, head_map(tensors.k, shape.kv_heads, shape.head_dim, tokens, shape.kv_stride),
          head_map(tensors.v, shape.kv_heads, shape.head_dim, tokens, shape.kv_stride),
          tensors.dout == nullptr ? q : head_map(tensors.dout, shape.heads, shape.head_dim, tokens, shape.o_stride)};
}

template <typename T>
void launch(void (*kernel)(AttentionTask<T>, TensorMaps), dim3 grid, int threads, int shared_bytes,
            const AttentionTask<T>& task, const TensorMaps& maps, cudaStream_t stream) {
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  launch_early(kernel, grid, threads, shared_bytes, stream, task, maps);
}

/// Calls work(T{}, std::integral_constant<int, kDim>{}) for the dtype and the tile that holds head_dim, at most 128.
template <typename Work>
void with_type(const AttentionShape& shape, const Work& work) {
  const auto with_dim = [&]<typename T>(T type) {
    if (shape.head_dim <= 64) {
      work(type, std::integral_constant<int, 64>{});
    } else {
      work(type, std::integral_constant<int, 128>{});
    }
  };
  if (shape.dtype == DType::bf16) {
    with_dim(__nv_bfloat16{});
  } else {
    with_dim(__half{});
  }
}

}  // namespace qshard::optimized::warpgroup_attention
