#include "reference/collectives.h"

#include <algorithm>
#include <cstring>

namespace qshard::reference {
namespace {

template <typename T>
std::vector<T> join(const std::vector<std::span<const T>>& parts) {
  std::vector<T> joined;
  for (const std::span<const T> part : parts) joined.insert(joined.end(), part.begin(), part.end());
  return joined;
}

/// What the other processes send to this one; index = process, empty for itself.
template <typename T>
using Received = std::vector<std::vector<T>>;

/// Sends to each other process what `part_for(process)` gives, `count` elements, and receives as many from each.
template <typename T, typename PartFor>
Received<T> exchange(const ProcessGroup& group, std::size_t count, const PartFor& part_for) {
  Received<T> sent(group.processes());
  Received<T> received(group.processes());
  if (group.link == nullptr) return received;
  std::vector<Outgoing> outgoing;
  std::vector<Incoming> incoming;
  for (std::size_t process = 0; process < group.processes(); ++process) {
    if (process == group.process()) continue;
    sent[process] = part_for(process);
    received[process].resize(count);
    outgoing.push_back({static_cast<int>(process), std::as_bytes(std::span(sent[process]))});
    incoming.push_back({static_cast<int>(process), std::as_writable_bytes(std::span(received[process]))});
  }
  group.link->exchange(outgoing, incoming);
  return received;
}

template <typename T>
void sum_into_all(const ProcessGroup& group, const RankBuffers<T>& buffers) {
  const std::size_t size = buffers.front().size();
  const std::vector<std::span<const T>> mine(buffers.begin(), buffers.end());
  const Received<T> received =
      exchange<T>(group, size * group.local_ranks, [&](std::size_t /*process*/) { return join(mine); });
  std::vector<std::span<const T>> all;  // index = rank
  for (std::size_t process = 0; process < group.processes(); ++process) {
    for (std::size_t i = 0; i < group.local_ranks; ++i) {
      all.push_back(process == group.process() ? mine[i] : std::span(received[process]).subspan(i * size, size));
    }
  }
  for (std::size_t i = 0; i < size; ++i) {
    T sum = 0;
    for (const std::span<const T> buffer : all) sum += buffer[i];
    for (const std::span<T> buffer : buffers) buffer[i] = sum;
  }
}

}  // namespace

void all_gather(const ProcessGroup& group, const RankBuffers<const std::byte>& shards,
                const RankBuffers<std::byte>& gathered) {
  const std::size_t size = shards.front().size();
  const Received<std::byte> received =
      exchange<std::byte>(group, size * group.local_ranks, [&](std::size_t /*process*/) { return join(shards); });
  const auto shard_of = [&](std::size_t rank) {
    const std::size_t process = rank / group.local_ranks;
    const std::size_t local = rank % group.local_ranks;
    return process == group.process() ? shards[local] : std::span(received[process]).subspan(local * size, size);
  };
  const std::size_t parts = gathered.front().size() / size;
  for (std::size_t local = 0; local < gathered.size(); ++local) {
    const std::size_t rank = group.first_rank() + local;
    auto position = gathered[local].begin();
    for (std::size_t part = 0; part < parts; ++part) {
      const std::span<const std::byte> shard = shard_of(rank - rank % parts + part);
      position = std::copy(shard.begin(), shard.end(), position);
    }
  }
}

void reduce_scatter(const ProcessGroup& group, const RankBuffers<const float>& full, const RankBuffers<float>& shards) {
  const std::size_t size = shards.front().size();
  const std::size_t parts = full.front().size() / size;
  // Of each buffer the parts that the ranks of one process reduce, one after the other.
  const auto parts_for = [&](std::size_t process) {
    std::vector<std::span<const float>> found;
    for (const std::span<const float> from : full) {
      for (std::size_t local = 0; local < group.local_ranks; ++local) {
        found.push_back(from.subspan((process * group.local_ranks + local) % parts * size, size));
      }
    }
    return join(found);
  };
  const std::size_t of_rank = size * group.local_ranks;
  Received<float> received = exchange<float>(group, of_rank * group.local_ranks, parts_for);
  received[group.process()] = parts_for(group.process());
  for (std::size_t local = 0; local < shards.size(); ++local) {
    std::vector<std::span<const float>> addends;  // index = rank
    for (std::size_t rank = 0; rank < group.world_size(); ++rank) {
      const std::span<const float> from = received[rank / group.local_ranks];
      addends.push_back(from.subspan(rank % group.local_ranks * of_rank + local * size, size));
    }
    for (std::size_t i = 0; i < size; ++i) {
      float sum = 0;
      for (const std::span<const float> addend : addends) sum += addend[i];
      shards[local][i] = sum;
    }
  }
}

void all_reduce(const ProcessGroup& group, const RankBuffers<float>& buffers) {
  sum_into_all(group, buffers);
}

void all_reduce(const ProcessGroup& group, const RankBuffers<double>& buffers) {
  sum_into_all(group, buffers);
}

void all_reduce(const ProcessGroup& group, const RankBuffers<std::int64_t>& buffers) {
  sum_into_all(group, buffers);
}

void broadcast(const ProcessGroup& group, std::vector<float>& values) {
  if (group.link == nullptr) return;
  const std::vector<std::byte> bytes = group.link->broadcast(std::as_bytes(std::span(values)), 0);
  values.resize(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
}

void broadcast(const ProcessGroup& group, std::vector<std::byte>& values) {
  if (group.link != nullptr) values = group.link->broadcast(values, 0);
}

}  // namespace qshard::reference
