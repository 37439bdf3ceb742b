#include "reference/collectives.h"

#include <algorithm>

namespace qshard::reference {
namespace {

template <typename T>
void sum_into_all(const RankBuffers<T>& buffers) {
  if (buffers.empty()) return;
  for (std::size_t i = 0; i < buffers.front().size(); ++i) {
    T sum = 0;
    for (const std::span<T> buffer : buffers) sum += buffer[i];
    for (const std::span<T> buffer : buffers) buffer[i] = sum;
  }
}

}  // namespace

void all_gather(const RankBuffers<const std::byte>& shards, const RankBuffers<std::byte>& gathered) {
  for (const std::span<std::byte> to : gathered) {
    auto position = to.begin();
    for (const std::span<const std::byte> shard : shards) position = std::copy(shard.begin(), shard.end(), position);
  }
}

void reduce_scatter(const RankBuffers<const float>& full, const RankBuffers<float>& shards) {
  for (std::size_t rank = 0; rank < shards.size(); ++rank) {
    const std::size_t begin = rank * shards[rank].size();
    for (std::size_t i = 0; i < shards[rank].size(); ++i) {
      float sum = 0;
      for (const std::span<const float> from : full) sum += from[begin + i];
      shards[rank][i] = sum;
    }
  }
}

void all_reduce(const RankBuffers<float>& buffers) {
  sum_into_all(buffers);
}

void all_reduce(const RankBuffers<double>& buffers) {
  sum_into_all(buffers);
}

}  // namespace qshard::reference
