#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/launch/rank_link.h"

namespace qshard::optimized {

/// NCCL's communicator of all ranks, for shards and gradients; everything small goes over the link. It is held to few
/// channels with small buffers: as it comes NCCL takes 0.85 GiB of a card. The library is opened here, not before.
///
/// Work is enqueued on the stream that is given, between begin() and end(); bytes are moved as they are. Every rank
/// must enqueue the same sequence. NCCL tells nothing when a peer on this host is killed: the link's watchdog does.
class NcclCommunicator {
 public:
  /// At most, each a thread block that holds a multiprocessor while bytes move.
  static constexpr int kChannels = 4;

  /// Collective. Makes the connections too, so that what the device has left afterwards is what it has left for good.
  /// Throws Error(bad_input), naming the ranks and what to do, where two ranks have one GPU or other versions of NCCL,
  /// or where there is no NCCL; Error(rank_failed) where NCCL fails or does not come back in time.
  explicit NcclCommunicator(RankLink& link);
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  void begin();
  /// gathered = `bytes` of rank 0, of rank 1, ...
  void all_gather(const std::byte* own, std::size_t bytes, std::byte* gathered, cudaStream_t stream);
  /// What one rank sends to another the other receives from it, in the same order and with the same sizes.
  void send(const std::byte* from, std::size_t bytes, std::size_t to_rank, cudaStream_t stream);
  void receive(std::byte* to, std::size_t bytes, std::size_t from_rank, cudaStream_t stream);
  /// Returns when everything since begin() is enqueued.
  void end();

 private:
  void check(int result, const char* what);
  /// Waits for what NCCL does in threads of its own.
  void wait_until_ready(const char* what);
  void connect_all();

  RankLink* link_;
  void* communicator_ = nullptr;
};

}  // namespace qshard::optimized
