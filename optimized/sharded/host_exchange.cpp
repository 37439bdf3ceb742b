#include <utility>

#include "optimized/device/cuda_check.h"
#include "optimized/sharded/pulled_exchange.h"

namespace qshard::optimized {

namespace {

// Every rank loads into the shared memory. A rank that keeps its frozen shards on its GPU copies them from there, and
// takes its own from the GPU afterwards; with offload everything frozen comes from the shared memory.
class HostExchange : public PulledExchange {
 public:
  HostExchange(const ExchangeParts& parts, const SharedHostMemory& host) : PulledExchange(parts), host_(&host) {
    for (const ShardRange range : {ShardRange::frozen, ShardRange::trainable, ShardRange::constants}) {
      for (std::size_t rank = 0; rank < ranks(); ++rank) {
        sources_.at(range, rank) = targets_.at(range, rank) = host.part(rank) + host.places().begin(range);
      }
      if (!parts.memory->piece(range).empty()) sources_.at(range, own()) = parts.memory->at(range);
    }
    std::vector<std::byte*> counters;
    for (std::size_t rank = 0; rank < ranks(); ++rank) counters.push_back(host.part(rank) + host.places().counters());
    set_signals(std::move(counters));
  }

  void finish_loading(cudaStream_t stream) override {
    meet(stream);
    for (const ShardRange range : {ShardRange::frozen, ShardRange::constants}) {
      if (parts().memory->piece(range).empty()) continue;
      copy(parts().memory->at(range), targets_.at(range, own()), parts().places->bytes(range), stream);
    }
    QSHARD_CUDA_CHECK(cudaStreamSynchronize(stream));
  }

  void publish(cudaStream_t stream) override {
    if (ranks() == 1) return;
    copy(targets_.at(ShardRange::trainable, own()), sources_.at(ShardRange::trainable, own()),
         parts().places->bytes(ShardRange::trainable), stream);
  }

  // Only what others read: all shards but the own one, which is read by ranks of other groups alone.
  void offer(const GradientBuffer& buffer, std::span<const GradientFlat> flats, cudaStream_t stream) override {
    const bool one_group = parts().layout->shards == parts().layout->world_size;
    for (const GradientFlat& flat : flats) {
      for (std::int64_t shard = 0; shard < parts().layout->shards; ++shard) {
        const std::int64_t begin = flat.begin + shard * flat.shard_elements;
        if (one_group && begin == own_gradients(flat)) continue;
        copy(reinterpret_cast<std::byte*>(offered(buffer, own()) + begin), buffer.memory->as<std::byte>() + begin * 4,
             flat.shard_elements * 4, stream);
      }
    }
    await_complete(buffer, stream);
  }

  RankArrays gradients(const GradientBuffer& buffer, const GradientFlat& flat, cudaStream_t) override {
    RankArrays arrays;
    arrays.ranks = static_cast<int>(ranks());
    for (std::size_t rank = 0; rank < ranks(); ++rank) {
      arrays.of_rank[rank] = (rank == own() ? buffer.memory->as<float>() : offered(buffer, rank)) + own_gradients(flat);
    }
    return arrays;
  }

  [[nodiscard]] const char* name() const override { return "host"; }

 private:
  static void copy(std::byte* to, const std::byte* from, std::int64_t bytes, cudaStream_t stream) {
    QSHARD_CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, stream));
  }

  [[nodiscard]] float* offered(const GradientBuffer& buffer, std::size_t rank) const {
    return reinterpret_cast<float*>(host_->part(rank) + host_->places().gradients(buffer.index));
  }

  const SharedHostMemory* host_;
};

}  // namespace

std::unique_ptr<Exchange> make_host_exchange(const ExchangeParts& parts, const SharedHostMemory& host) {
  return std::make_unique<HostExchange>(parts, host);
}

}  // namespace qshard::optimized
