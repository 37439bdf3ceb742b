#include "optimized/device/cuda_check.h"
#include "optimized/sharded/exchange.h"

namespace qshard::optimized {

namespace {

class NcclExchange : public Exchange {
 public:
  NcclExchange(const ExchangeParts& parts, NcclCommunicator& communicator)
      : parts_(parts),
        communicator_(&communicator),
        own_(static_cast<std::size_t>(parts.link->rank())),
        first_(first_of_group(*parts.layout, own_)) {}

  void deliver(std::span<const Delivery> deliveries, const std::byte* staging, cudaStream_t stream) override {
    communicator_->begin();
    for (const Delivery& delivery : deliveries) {
      const auto bytes = static_cast<std::size_t>(delivery.bytes);
      std::byte* to = parts_.memory->at(delivery.range) + delivery.to_offset;
      const std::byte* from = staging + delivery.from_offset;
      if (delivery.from == own_ && delivery.to == own_) {
        QSHARD_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
      } else if (delivery.from == own_) {
        communicator_->send(from, bytes, delivery.to, stream);
      } else if (delivery.to == own_) {
        communicator_->receive(to, bytes, delivery.from, stream);
      }
    }
    communicator_->end();
  }

  void finish_loading(cudaStream_t stream) override {
    QSHARD_CUDA_CHECK(cudaStreamSynchronize(stream));
    parts_.link->barrier();
  }

  void gather(std::span<const Gathering> flats, cudaStream_t stream) override {
    communicator_->begin();
    for (const Gathering& flat : flats) {
      const std::byte* own = parts_.memory->at(flat.range) + flat.offset;
      const auto bytes = static_cast<std::size_t>(flat.shard_bytes);
      if (parts_.layout->shards == parts_.layout->world_size) {
        communicator_->all_gather(own, bytes, flat.gathered, stream);
      } else {
        gather_in_group(own, bytes, flat.gathered, stream);
      }
    }
    communicator_->end();
  }

  [[nodiscard]] std::size_t own_shard() const override { return own_ - first_; }

  [[nodiscard]] const std::byte* frozen(std::size_t) const override {
    return parts_.layout->shards == 1 ? parts_.memory->at(ShardRange::frozen) : nullptr;
  }

  // Others are sent what they gather.
  void publish(cudaStream_t) override {}
  void offer(const GradientBuffer&, std::span<const GradientFlat>, cudaStream_t) override {}
  void release(const GradientBuffer&, cudaStream_t) override {}
  void await_release(const GradientBuffer&, cudaStream_t) override {}

  RankArrays gradients(const GradientBuffer& buffer, const GradientFlat& flat, cudaStream_t stream) override {
    const auto ranks = static_cast<std::size_t>(parts_.layout->world_size);
    const auto bytes = static_cast<std::size_t>(flat.shard_elements) * 4;
    const auto shard_of = [&](std::size_t rank) {
      const auto shard = static_cast<std::int64_t>(rank - first_of_group(*parts_.layout, rank));
      return buffer.memory->as<float>() + flat.begin + shard * flat.shard_elements;
    };
    RankArrays arrays;
    arrays.ranks = static_cast<int>(ranks);
    communicator_->begin();
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      arrays.of_rank[rank] = shard_of(own_);
      if (rank == own_) continue;
      auto* received = parts_.room->as<std::byte>() + rank * bytes;
      communicator_->send(reinterpret_cast<const std::byte*>(shard_of(rank)), bytes, rank, stream);
      communicator_->receive(received, bytes, rank, stream);
      arrays.of_rank[rank] = reinterpret_cast<const float*>(received);
    }
    communicator_->end();
    return arrays;
  }

  [[nodiscard]] const char* name() const override { return "nccl"; }

 private:
  void gather_in_group(const std::byte* own, std::size_t bytes, std::byte* gathered, cudaStream_t stream) {
    for (std::size_t shard = 0; shard < static_cast<std::size_t>(parts_.layout->shards); ++shard) {
      const std::size_t rank = first_ + shard;
      std::byte* to = gathered + shard * bytes;
      if (rank == own_) {
        QSHARD_CUDA_CHECK(cudaMemcpyAsync(to, own, bytes, cudaMemcpyDeviceToDevice, stream));
        continue;
      }
      communicator_->send(own, bytes, rank, stream);
      communicator_->receive(to, bytes, rank, stream);
    }
  }

  ExchangeParts parts_;
  NcclCommunicator* communicator_;
  std::size_t own_;
  std::size_t first_;
};

}  // namespace

std::unique_ptr<Exchange> make_nccl_exchange(const ExchangeParts& parts, NcclCommunicator& communicator) {
  return std::make_unique<NcclExchange>(parts, communicator);
}

}  // namespace qshard::optimized
