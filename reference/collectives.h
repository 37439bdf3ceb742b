#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace qshard::reference {

/// One buffer a rank, index = rank. The collectives are what NCCL's do, as plain copies and sums in this process.
template <typename T>
using RankBuffers = std::vector<std::span<T>>;

/// gathered[r] = shards[0], shards[1], ... one after the other, for every rank r. Shards have equal sizes n, gathered
/// buffers world_size * n. Bytes are copied as they are: no bit changes, NaN patterns included.
void all_gather(const RankBuffers<const std::byte>& shards, const RankBuffers<std::byte>& gathered);

/// shards[r][i] = sum over ranks of full[rank][r * n + i], added in rank order in float. full buffers have world_size *
/// n elements, shards n.
void reduce_scatter(const RankBuffers<const float>& full, const RankBuffers<float>& shards);

/// Every buffer becomes the sum of all, added in rank order.
void all_reduce(const RankBuffers<float>& buffers);
void all_reduce(const RankBuffers<double>& buffers);

}  // namespace qshard::reference
