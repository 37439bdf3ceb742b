#include <algorithm>

#include <fmt/format.h>

#include "optimized/attention/cudnn/cudnn_attention.h"

namespace qshard::optimized {

namespace {

constexpr std::int64_t kUsualScoreBytes = std::int64_t{64} << 20;
constexpr std::int64_t kMostScoreBytes = std::int64_t{256} << 20;

/// What cuDNN wants beside the matrices that are counted; more is refused when the graph is built.
constexpr std::int64_t kSpareBytes = std::int64_t{16} << 20;

std::int64_t largest_divisor(std::int64_t value, std::int64_t most) {
  std::int64_t divisor = std::min(value, most);
  while (value % divisor != 0) --divisor;
  return divisor;
}

/// dp of one query head of one row.
std::int64_t score_bytes(std::int64_t length) {
  return 2 * length * length;
}

}  // namespace

CudnnCut cut_for_cudnn(const AttentionShape& shape, const AttentionSizes& sizes) {
  const std::int64_t group_bytes = shape.heads / shape.kv_heads * score_bytes(sizes.longest);
  const std::int64_t groups = kUsualScoreBytes / group_bytes;
  if (groups >= shape.kv_heads) return {largest_divisor(sizes.rows, groups / shape.kv_heads), shape.kv_heads};
  if (groups >= 1) return {1, largest_divisor(shape.kv_heads, groups)};
  return group_bytes <= kMostScoreBytes ? CudnnCut{1, 1} : CudnnCut{0, 0};
}

std::size_t cudnn_graph_bytes(const AttentionShape& shape, const AttentionSizes& sizes) {
  const CudnnCut cut = cut_for_cudnn(shape, sizes);
  const std::int64_t query_heads = cut.rows * cut.kv_heads * (shape.heads / shape.kv_heads);
  const std::int64_t sums = sizes.longest * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t key_gradients = 2 * sizes.longest * shape.head_dim * static_cast<std::int64_t>(sizeof(float));
  return query_heads * (score_bytes(sizes.longest) + sums + key_gradients) + kSpareBytes;
}

std::size_t cudnn_statistics_bytes(const AttentionShape& shape, const AttentionSizes& sizes) {
  return (sizes.tokens * shape.heads * sizeof(float) + 255) / 256 * 256;
}

std::size_t cudnn_attention_workspace_bytes(const AttentionShape& shape, const AttentionSizes& sizes) {
  return cudnn_statistics_bytes(shape, sizes) + cudnn_graph_bytes(shape, sizes);
}

std::string cudnn_attention_refuses_shape(const AttentionShape& shape, const AttentionSizes& sizes) {
  if (shape.dtype == DType::f32) return "cuDNN's fused attention has 16-bit dtypes only";
  if (!sizes.dense()) return "the rows have different lengths";
  if (shape.window != 0) return "there is a sliding window";
  if (sizes.longest % 128 != 0) return fmt::format("the length {} is no multiple of 128", sizes.longest);
  if (shape.head_dim % 8 != 0) return fmt::format("head_dim {} is no multiple of 8", shape.head_dim);
  for (const std::int64_t stride : {shape.q_stride, shape.kv_stride, shape.o_stride}) {
    if (stride % 8 != 0) return fmt::format("the stride {} is no multiple of 8", stride);
  }
  if (cut_for_cudnn(shape, sizes).rows == 0) {
    return fmt::format("a deterministic backward pass of {} heads at length {} would need {} MiB",
                       shape.heads / shape.kv_heads, sizes.longest,
                       shape.heads / shape.kv_heads * score_bytes(sizes.longest) >> 20);
  }
  return "";
}

}  // namespace qshard::optimized
