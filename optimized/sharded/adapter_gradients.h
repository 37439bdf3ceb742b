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
#include "optimized/sharded/exchange.h"

namespace qshard::optimized {

/// Gradients of the adapters on one rank, float, summed over the ranks in rank order and then over the micro-batches.
///
/// Where the adapters are sharded, a stage's gradients are summed on a stream of their own while the arithmetic goes on
/// with the next stage: the ranks' streams wait for each other (see Exchange). A rank holds the sums of its own shards
/// and the whole gradients of two stages. Otherwise (NO_SHARD) they are accumulated whole and summed once a step.
class AdapterGradients {
 public:
  /// exchange: null in a dry run. The references must outlive this object. compute: the stream of the arithmetic.
  AdapterGradients(const ShardLayout& layout, const ShardPlaces& places, Exchange* exchange, cudaStream_t compute,
                   Arena& arena);

  /// Begins a step: all gradients are zero.
  void zero();
  /// Gradients of the stage may be added from here to the end of the stage.
  void begin_stage(std::size_t stage);
  void end_stage(std::size_t stage);
  /// A trainable flat's gradients as they are before it is cut, to be added to; valid within its stage. Null in a dry
  /// run.
  [[nodiscard]] float* flat(std::size_t unit, std::size_t flat) const;
  /// Ends a step: own() is complete for what is enqueued on the compute stream after this.
  void reduce();

  /// The sums that belong to this rank's trainable shards, one flat after the other, in the order of ShardPlaces.
  [[nodiscard]] const float* own() const;
  [[nodiscard]] std::int64_t own_elements() const { return shard_elements_; }

 private:
  struct TrainableFlat {
    std::size_t unit;
    std::size_t flat;
    std::size_t stage;
    GradientFlat whole;        // in the buffer of its stage, or of everything
    std::int64_t shard_begin;  // in elements, in the shards
  };
  static constexpr std::size_t kMostBuffers = 2;

  /// Whether own() is everything on every rank (NO_SHARD, or one rank).
  [[nodiscard]] bool replicated() const { return shards_ == 1; }
  [[nodiscard]] std::size_t buffer_of(std::size_t stage) const { return replicated() ? 0 : stage % kMostBuffers; }
  [[nodiscard]] GradientBuffer buffer(std::size_t index) const { return {index, &whole_[index]}; }
  [[nodiscard]] std::int64_t stage_elements(std::size_t stage) const;
  /// Sums the flats of a stage (of all stages where they are whole) over the ranks.
  void sum_stage(std::size_t stage, cudaStream_t stream) const;

  int world_size_;
  int shards_;
  Exchange* exchange_;
  cudaStream_t compute_;
  std::optional<Stream> sums_;            // where stages are summed one by one; none in a dry run
  Event done_;                            // on the compute stream: the gradients of a stage
  Event summed_;                          // on the stream of the sums
  std::array<Event, kMostBuffers> read_;  // there, too: this rank has read the buffer
  std::vector<TrainableFlat> flats_;
  std::int64_t shard_elements_ = 0;
  std::array<Arena::Piece, kMostBuffers> whole_;
  Arena::Piece sum_;  // of this rank's shards; empty where there is one rank
};

}  // namespace qshard::optimized
