#include "optimized/device/cuda_check.h"
#include "optimized/sharded/transport.h"

namespace qshard::optimized {

namespace {

class PeerTransport : public Transport {
 public:
  explicit PeerTransport(const PeerArenas& arenas) : arenas_(arenas) {}

  void gather(std::int64_t offset, std::int64_t shard_bytes, std::byte* gathered, cudaStream_t stream) override {
    for (std::size_t rank = 0; rank < arenas_.bases.size(); ++rank) {
      QSHARD_CUDA_CHECK(cudaMemcpyAsync(gathered + static_cast<std::int64_t>(rank) * shard_bytes,
                                        arenas_.bases[rank] + offset, static_cast<std::size_t>(shard_bytes),
                                        cudaMemcpyDeviceToDevice, stream));
    }
  }

  [[nodiscard]] const char* name() const override { return "peer"; }

 private:
  PeerArenas arenas_;
};

}  // namespace

std::unique_ptr<Transport> make_peer_transport(const PeerArenas& arenas) {
  return std::make_unique<PeerTransport>(arenas);
}

}  // namespace qshard::optimized
