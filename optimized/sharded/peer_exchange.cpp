#include <utility>

#include "optimized/device/cuda_check.h"
#include "optimized/sharded/pulled_exchange.h"

namespace qshard::optimized {

namespace {

class PeerExchange : public PulledExchange {
 public:
  PeerExchange(const ExchangeParts& parts, const PeerMemory& peers) : PulledExchange(parts), peers_(&peers) {
    for (const ShardRange range : {ShardRange::frozen, ShardRange::trainable, ShardRange::constants}) {
      for (std::size_t rank = 0; rank < ranks(); ++rank) {
        sources_.at(range, rank) = targets_.at(range, rank) = peers.base(rank) + parts.memory->piece(range).offset();
      }
    }
    if (ranks() == 1) return;
    std::vector<std::byte*> counters;
    for (std::size_t rank = 0; rank < ranks(); ++rank) counters.push_back(peers.base(rank) + parts.room->offset());
    const auto bytes = static_cast<std::size_t>(StreamSignals::bytes(kGradientChannels));
    QSHARD_CUDA_CHECK(cudaMemset(counters[own()], 0, bytes));  // nobody signals before loading is finished
    QSHARD_CUDA_CHECK(cudaStreamSynchronize(nullptr));
    set_signals(std::move(counters));
  }

  void finish_loading(cudaStream_t stream) override { meet(stream); }

  // Others read the arena itself.
  void publish(cudaStream_t) override {}
  void offer(const GradientBuffer& buffer, std::span<const GradientFlat>, cudaStream_t stream) override {
    await_complete(buffer, stream);
  }

  RankArrays gradients(const GradientBuffer& buffer, const GradientFlat& flat, cudaStream_t) override {
    RankArrays arrays;
    arrays.ranks = static_cast<int>(ranks());
    for (std::size_t rank = 0; rank < ranks(); ++rank) {
      arrays.of_rank[rank] =
          reinterpret_cast<const float*>(peers_->base(rank) + buffer.memory->offset()) + own_gradients(flat);
    }
    return arrays;
  }

  [[nodiscard]] const char* name() const override { return "peer"; }

 private:
  const PeerMemory* peers_;
};

}  // namespace

std::unique_ptr<Exchange> make_peer_exchange(const ExchangeParts& parts, const PeerMemory& peers) {
  return std::make_unique<PeerExchange>(parts, peers);
}

}  // namespace qshard::optimized
