#include "core/tensor/weight4bit.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/dropout.cuh"
#include "optimized/dropout_masks.h"
#include "optimized/ptx/programmatic_launch.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 128;
constexpr int kWordFeatures = 32;  // one bit each
constexpr int kThreadWords = 4;    // neighbouring ones: a token's words of a mask are a multiple of them

struct Mask {
  std::uint32_t place;
  std::uint32_t features;
  std::uint32_t* words;
  std::uint32_t words_a_token;
  std::uint32_t first_word;  // of the words of a token
};

struct MaskTask {
  DropoutKey key;
  TokenRows rows;
  Mask masks[kMostDropoutMasks];
  int count;
  std::uint32_t words_a_token;  // of all masks
};

/// All masks of a token, one after the other, then those of the next: so every thread has work, whatever the features.
__global__ void __launch_bounds__(kThreads) dropout_masks_kernel(const __grid_constant__ MaskTask task) {
  // Nobody may begin before this kernel ends: masks are read as constant data, which has no order with a wait.
  grid_dependency_synchronize();
  const std::int64_t threads_a_token = task.words_a_token / kThreadWords;
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t token = thread / threads_a_token;
  if (token >= task.rows.tokens) return;
  const auto of_token = static_cast<std::uint32_t>(thread - token * threads_a_token) * kThreadWords;
  int index = task.count - 1;
  while (of_token < task.masks[index].first_word) --index;
  const Mask& mask = task.masks[index];
  const std::uint32_t first_word = of_token - mask.first_word;
  const std::int32_t position = task.rows.positions[token];
  const std::uint32_t row_id = task.rows.row_ids[task.rows.row_of[token]];
  DropoutKey key = task.key;
  key.place = mask.place;
#pragma unroll 1
  for (std::uint32_t word = first_word; word < first_word + kThreadWords; ++word) {
    std::uint32_t bits = 0;
#pragma unroll
    for (int f = 0; f < kWordFeatures; f += 4) {
      const uint4 words = dropout_words(key, position, row_id, word * kWordFeatures + f);
      bits |= static_cast<std::uint32_t>(words.x >= key.threshold) << f;
      bits |= static_cast<std::uint32_t>(words.y >= key.threshold) << (f + 1);
      bits |= static_cast<std::uint32_t>(words.z >= key.threshold) << (f + 2);
      bits |= static_cast<std::uint32_t>(words.w >= key.threshold) << (f + 3);
    }
    const std::uint32_t first = word * kWordFeatures;
    const std::uint32_t inside = mask.features > first ? mask.features - first : 0;
    if (inside < kWordFeatures) bits &= (1U << inside) - 1;
    mask.words[token * mask.words_a_token + word] = bits;
  }
}

}  // namespace

void dropout_masks(const DropoutMask& common, const TokenRows& rows, std::span<const DropoutMaskBits> masks,
                   cudaStream_t stream) {
  check_dropout_masks(common, masks);
  check_at_least(rows.tokens, 0, "the number of tokens");
  DropoutMask mask = common;
  MaskTask task{DropoutKey(common), rows, {}, static_cast<int>(masks.size()), 0};
  for (std::size_t i = 0; i < masks.size(); ++i) {
    const auto& [projection, features, bits] = masks[i];
    mask.projection = projection;
    const auto words = static_cast<std::uint32_t>(dropout_mask_stride(features) / sizeof(std::uint32_t));
    task.masks[i] = {DropoutKey(mask).place, static_cast<std::uint32_t>(features),
                     reinterpret_cast<std::uint32_t*>(bits), words, task.words_a_token};
    task.words_a_token += words;
  }
  if (rows.tokens == 0 || masks.empty()) return;
  check_pointer(rows.positions, sizeof(*rows.positions), "the positions of dropout's tokens");
  check_pointer(rows.row_of, sizeof(*rows.row_of), "the rows of dropout's tokens");
  check_pointer(rows.row_ids, sizeof(*rows.row_ids), "the row ids of dropout");
  const std::int64_t threads = std::int64_t{rows.tokens} * task.words_a_token / kThreadWords;
  launch_early(dropout_masks_kernel, dim3(static_cast<unsigned>(block_count(threads, kThreads))), kThreads, 0, stream,
               task);
}

}  // namespace qshard::optimized
