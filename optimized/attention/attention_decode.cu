#include <cmath>

#include "optimized/attention/attention_decode.cuh"
#include "optimized/attention/attention_decode_launch.h"
#include "optimized/attention/decode_parts.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"

namespace qshard::optimized {

namespace {

template <typename T, int kDim, int kHeads, int kWidth>
void launch_heads(const DecodeTask<T>& task, dim3 grid, cudaStream_t stream) {
  if constexpr (kWidth == 8 && kDim <= 128) {
    if (task.head_dim == kDim) {
      launch_early(decode_part_in_registers<T, kDim, kHeads>, grid, kDecodeThreads, 0, stream, task);
      return;
    }
  }
  constexpr int kBytes = sizeof(typename DecodeTiling<kDim, kHeads>::Shared);
  const auto kernel = decode_part<T, kDim, kHeads, kWidth>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  launch_early(kernel, grid, kDecodeThreads, kBytes, stream, task);
}

template <typename T, int kDim, int kWidth>
void launch_parts(const DecodeTask<T>& task, dim3 grid, cudaStream_t stream) {
  if (task.heads / task.kv_heads <= 4) {
    launch_heads<T, kDim, 4, kWidth>(task, grid, stream);
  } else {
    launch_heads<T, kDim, 8, kWidth>(task, grid, stream);
  }
}

template <typename T, int kWidth>
void launch_decode(const DecodeTask<T>& task, std::int64_t rows, cudaStream_t stream) {
  const dim3 grid(task.parts, task.kv_heads, static_cast<unsigned>(rows));
  if (task.head_dim <= 64) {
    launch_parts<T, 64, kWidth>(task, grid, stream);
  } else if (task.head_dim <= 128) {
    launch_parts<T, 128, kWidth>(task, grid, stream);
  } else {
    launch_parts<T, 256, kWidth>(task, grid, stream);
  }
  const int threads = (task.head_dim + 31) / 32 * 32;
  launch_early(decode_combine<T>, dim3(task.heads, static_cast<unsigned>(rows)), threads, 0, stream, task);
}

template <typename T>
DecodeTask<T> make_decode_task(const AttentionDecodeShape& shape, const void* q, const void* keys, const void* values,
                               const std::int32_t* lengths, void* o, void* workspace, const DecodeRotation& rotation) {
  return {static_cast<const T*>(q),
          static_cast<const T*>(keys),
          static_cast<const T*>(values),
          lengths,
          static_cast<T*>(o),
          static_cast<float*>(workspace),
          static_cast<int>(shape.heads),
          static_cast<int>(shape.kv_heads),
          static_cast<int>(shape.head_dim),
          static_cast<int>(shape.window),
          static_cast<int>(shape.capacity),
          static_cast<int>(decode_part_tokens(shape.capacity)),
          static_cast<int>(decode_parts(shape.capacity)),
          shape.q_stride,
          shape.o_stride,
          static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim))),
          rotation.cos,
          rotation.sin,
          static_cast<T*>(rotation.key_cache),
          static_cast<T*>(rotation.value_cache)};
}

}  // namespace

void launch_attention_decode(const AttentionDecodeShape& shape, const void* q, const void* key_cache,
                             const void* value_cache, const std::int32_t* lengths, void* o, void* workspace,
                             bool vector, const DecodeRotation& rotation, cudaStream_t stream) {
  const auto task_of = [&]<typename T>(T) {
    return make_decode_task<T>(shape, q, key_cache, value_cache, lengths, o, workspace, rotation);
  };
  const auto launch_16_bits = [&](auto element) {
    const auto task = task_of(element);
    using T = decltype(element);
    if (vector) {
      launch_decode<T, 8>(task, shape.rows, stream);
    } else {
      launch_decode<T, 1>(task, shape.rows, stream);
    }
  };
  if (shape.dtype == DType::f32) {
    launch_decode<float, 1>(task_of(float{}), shape.rows, stream);
  } else if (shape.dtype == DType::bf16) {
    launch_16_bits(__nv_bfloat16{});
  } else {
    launch_16_bits(__half{});
  }
}

}  // namespace qshard::optimized
