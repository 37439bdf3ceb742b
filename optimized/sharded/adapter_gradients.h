#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <cuda_runtime_api.h>

#include "core/sharding/shard_layout.h"
#include "optimized/device/arena.h"
#include "optimized/device/stream.h"
#include "optimized/sharded/device_shards.h"
#include "optimized/sharded/peer_arenas.h"
#include "optimized/sharded/peer_signals.h"

namespace qshard::optimized {

/// Gradients of the adapters on one rank, float, summed over the ranks in rank order and then over the micro-batches.
///
/// Where the adapters are sharded, a stage's gradients are summed on a stream of their own while the arithmetic goes on
/// with the next stage: the ranks' streams wait for each other by PeerSignals. A rank holds the sums of its own shards
/// and the whole gradients of two stages. Otherwise (NO_SHARD) they are accumulated whole and summed once a step.
class AdapterGradients {
 public:
  /// peers: empty in a dry run. The references must outlive this object. compute: the stream of the arithmetic.
  AdapterGradients(const ShardLayout& layout, const ShardPlaces& places, const PeerArenas& peers, cudaStream_t compute,
                   Arena& arena);

  /// Enqueues zeros for the signals between ranks. Every rank does it, and none may begin a step before all are done.
  void clear_signals() const;
  /// Begins a step: all gradients are zero.
  void zero();
  /// Gradients of the stage may be added from here to the end of the stage.
  void begin_stage(std::size_t stage);
  void end_stage(std::size_t stage);
  /// A trainable flat's gradients as they are before it is cut, to be added to; valid within its stage. Null in a dry
  /// run.
  [[nodiscard]] float* flat(std::size_t unit, std::size_t flat) const;
  /// Ends a step: own() is complete for what is enqueued on the compute stream after this. Where the gradients are
  /// whole, the other ranks' must be complete before, and stay so until every rank is done with this.
  void reduce();

  /// The sums that belong to this rank's trainable shards, one flat after the other, in the order of ShardPlaces.
  [[nodiscard]] const float* own() const;
  [[nodiscard]] std::int64_t own_elements() const { return shard_elements_; }
  /// Whether own() is everything on every rank (NO_SHARD, or one rank).
  [[nodiscard]] bool replicated() const { return shards_ == 1; }

 private:
  struct TrainableFlat {
    std::size_t unit;
    std::size_t flat;
    std::size_t stage;
    std::int64_t shard_elements;
    std::int64_t whole_begin;  // in elements, in the buffer of its stage; in all gradients where they are whole
    std::int64_t shard_begin;  // in elements, in the shards
  };
  static constexpr std::size_t kBuffers = 2;

  [[nodiscard]] std::size_t buffer_of(std::size_t stage) const { return replicated() ? 0 : stage % kBuffers; }
  [[nodiscard]] std::int64_t stage_elements(std::size_t stage) const;
  void sum_flat(const TrainableFlat& flat, bool add, cudaStream_t stream) const;

  std::size_t world_size_;
  std::size_t shards_;
  const PeerArenas* peers_;
  cudaStream_t compute_;
  std::optional<Stream> sums_;  // where stages are summed one by one; none in a dry run
  Event done_;                  // on the compute stream: the gradients of a stage
  Event summed_;                // on the stream of the sums
  std::vector<TrainableFlat> flats_;
  std::int64_t whole_elements_ = 0;  // of a buffer
  std::int64_t shard_elements_ = 0;
  std::array<Arena::Piece, kBuffers> whole_;
  Arena::Piece sum_;  // of this rank's shards; empty where there is one rank
  std::optional<PeerSignals> signals_;
};

}  // namespace qshard::optimized
