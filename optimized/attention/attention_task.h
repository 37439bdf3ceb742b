#pragma once

#include <cstdint>

namespace qshard::optimized {

inline constexpr float kLog2E = 1.4426950408889634F;
inline constexpr float kLn2 = 0.6931471805599453F;

/// Arguments of the attention kernels; what a kernel does not need is null.
template <typename T>
struct AttentionTask {
  const std::int32_t* offsets;  // [rows + 1]
  int tokens;
  int rows;
  int heads;
  int kv_heads;
  int head_dim;
  int window;  // 0: none
  std::int64_t q_stride;
  std::int64_t kv_stride;
  std::int64_t o_stride;
  float scale;  // 1 / sqrt(head_dim)
  const T* q;
  const T* k;
  const T* v;
  T* o;        // written by the forward pass
  float* lse;  // [heads, tokens]; written by the forward pass
  const T* dout;
  float* delta;  // [heads, tokens]: do . o
  T* dq;
  T* dk;
  T* dv;
  int splits;        // thread blocks that share the query heads of a group
  float* partial_k;  // [splits, tokens, kv_heads, head_dim] where splits > 1
  float* partial_v;
};

}  // namespace qshard::optimized
