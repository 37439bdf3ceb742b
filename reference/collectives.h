#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "reference/process_group.h"

namespace qshard::reference {

/// One buffer for each rank of this process, in rank order. The collectives are what NCCL's do, as plain copies and
/// sums, over the link between the processes where the group has more than one. How the ranks are dealt to processes
/// changes no bit: sums are added in rank order, starting from 0.
template <typename T>
using RankBuffers = std::vector<std::span<T>>;

/// gathered[i] = the shards of the ranks of rank i's group one after the other, for the ranks i of this process (the
/// first ones, where fewer buffers are given). Shards have equal sizes n, gathered buffers s * n; s consecutive ranks
/// are a group, all of them where s is the world size. Bytes are copied as they are: no bit changes, NaN patterns
/// included.
void all_gather(const ProcessGroup& group, const RankBuffers<const std::byte>& shards,
                const RankBuffers<std::byte>& gathered);

/// For rank r of this process: its shard [i] = sum over all ranks, also those of other groups, of their full[(r % s) *
/// n
/// + i], added in rank order in float. full buffers have s * n elements, shards n. s = 1 is an all-reduce.
void reduce_scatter(const ProcessGroup& group, const RankBuffers<const float>& full, const RankBuffers<float>& shards);

/// Every buffer becomes the sum of those of all ranks, added in rank order.
void all_reduce(const ProcessGroup& group, const RankBuffers<float>& buffers);
void all_reduce(const ProcessGroup& group, const RankBuffers<double>& buffers);
void all_reduce(const ProcessGroup& group, const RankBuffers<std::int64_t>& buffers);

/// values become those of the process that holds rank 0; it alone decides their number.
void broadcast(const ProcessGroup& group, std::vector<float>& values);
void broadcast(const ProcessGroup& group, std::vector<std::byte>& values);

}  // namespace qshard::reference
