#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <cuda_runtime_api.h>

#include "core/launch/rank_link.h"
#include "core/sharding/shard_layout.h"
#include "core/sharding/transport.h"
#include "optimized/device/arena.h"
#include "optimized/rank_sum.h"
#include "optimized/sharded/device_shards.h"
#include "optimized/sharded/nccl_communicator.h"
#include "optimized/sharded/peer_memory.h"
#include "optimized/sharded/shared_host_memory.h"

namespace qshard::optimized {

/// Loaded bytes on their way from the rank that read them to a rank that holds them.
struct Delivery {
  std::size_t from = 0;
  std::int64_t from_offset = 0;  // in the memory that `from` gives
  std::size_t to = 0;
  ShardRange range = ShardRange::frozen;
  std::int64_t to_offset = 0;  // in that range of rank `to`
  std::int64_t bytes = 0;
};

/// One flat to be put together: gathered = the shards of the group's ranks one after the other. What is read in this
/// rank's own shard need not be there.
struct Gathering {
  ShardRange range = ShardRange::frozen;
  std::int64_t offset = 0;  // of the shard in that range of every rank
  std::int64_t shard_bytes = 0;
  std::byte* gathered = nullptr;
  ByteRange in_place;  // of the own shard
};

/// The gradients of a trainable flat as it is before it is cut, in a buffer of gradients.
struct GradientFlat {
  std::int64_t shard_elements = 0;
  std::int64_t begin = 0;  // in elements, in the buffer
};

/// A buffer of gradients in which several flats lie one after the other. The ranks fill and read the same buffers in
/// the same order.
struct GradientBuffer {
  std::size_t index = 0;
  const Arena::Piece* memory = nullptr;
};

/// Room for the gradients of a layout before they are cut: how many buffers, and elements of each.
struct GradientRoom {
  std::size_t buffers = 1;
  std::int64_t elements = 0;
};
GradientRoom gradient_room(const ShardLayout& layout);

/// How a rank gets bytes out of the other ranks' memory. Everything is enqueued on the stream that is given; the host
/// waits only where it says so. Bytes move as they are, and gradients are added by the caller, in rank order: so every
/// form gives the same bits.
///
/// All functions but frozen() and name() are collective: every rank calls them in the same order, with the same sizes.
/// Frozen bytes never change after loading. Trainable bytes change between a publish() and a later meeting of all ranks
/// at which each has waited for its streams: before it nobody gathers them, after it nobody changes them.
class Exchange {
 public:
  virtual ~Exchange() = default;

  /// Loading: every rank gives the same list, and `staging` that the deliveries from it lie in.
  virtual void deliver(std::span<const Delivery> deliveries, const std::byte* staging, cudaStream_t stream) = 0;
  /// After the last delivery; waits for all ranks.
  virtual void finish_loading(cudaStream_t stream) = 0;

  virtual void gather(std::span<const Gathering> flats, cudaStream_t stream) = 0;
  /// Which of its group's shards is this rank's.
  [[nodiscard]] virtual std::size_t own_shard() const = 0;
  /// The frozen range of the group's rank `shard` as kernels of this rank read it; null where they cannot.
  [[nodiscard]] virtual const std::byte* frozen(std::size_t shard) const = 0;

  /// This rank's trainable shards have changed, by work on `stream`.
  virtual void publish(cudaStream_t stream) = 0;

  /// What is in `stream` so far completes this rank's gradients of the flats, all that are in the buffer. Work on
  /// `stream` after this may call for every rank's.
  virtual void offer(const GradientBuffer& buffer, std::span<const GradientFlat> flats, cudaStream_t stream) = 0;
  /// Every rank's gradients of this rank's shard of a flat, for work on `stream`, until the next call.
  virtual RankArrays gradients(const GradientBuffer& buffer, const GradientFlat& flat, cudaStream_t stream) = 0;
  /// What is in `stream` so far has read what it wanted of the buffer.
  virtual void release(const GradientBuffer& buffer, cudaStream_t stream) = 0;
  /// Work on `stream` after this may fill the buffer again: every rank has released what this rank released last.
  virtual void await_release(const GradientBuffer& buffer, cudaStream_t stream) = 0;

  /// For plans and records: "peer", "nccl", "host".
  [[nodiscard]] virtual const char* name() const = 0;

 protected:
  Exchange() = default;
  Exchange(const Exchange&) = default;
  Exchange& operator=(const Exchange&) = default;
};

/// What every form works with; the references must outlive the exchange.
struct ExchangeParts {
  const ShardLayout* layout = nullptr;
  const ShardPlaces* places = nullptr;
  const ShardMemory* memory = nullptr;
  const Arena::Piece* room = nullptr;  // of exchange_bytes(); empty where it takes none
  RankLink* link = nullptr;
};

/// What an exchange itself takes of the arena.
std::int64_t exchange_bytes(const ShardLayout& layout, Transport transport);

/// By the copy engine out of the other GPUs' memory, and kernels that read it; gathers wait for no other rank.
std::unique_ptr<Exchange> make_peer_exchange(const ExchangeParts& parts, const PeerMemory& peers);

/// By the copy engine out of host memory that the ranks share. Its layout is HostPlaces.
std::unique_ptr<Exchange> make_host_exchange(const ExchangeParts& parts, const SharedHostMemory& host);

/// By NCCL's collectives.
std::unique_ptr<Exchange> make_nccl_exchange(const ExchangeParts& parts, NcclCommunicator& communicator);

}  // namespace qshard::optimized
