#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <cuda_runtime_api.h>

#include "core/run/engine_options.h"
#include "core/sharding/shard_layout.h"
#include "optimized/device/arena.h"
#include "optimized/sharded/device_shards.h"
#include "optimized/sharded/peer_arenas.h"

namespace qshard::optimized {

/// Gradients and AdamW state of the adapters on one rank. Gradients are accumulated in float, whole, over the batches
/// of a step; then each rank adds up the part that belongs to its shards, over all ranks in rank order. The moments are
/// those of the rank's shards (of everything under NO_SHARD), in `moment_dtype`.
class AdapterOptimizer {
 public:
  AdapterOptimizer(const ShardLayout& layout, const ShardPlaces& places, const AdamWOptions& options,
                   DType moment_dtype, Arena& arena);

  /// The gradients of a trainable flat as it is before it is cut, float, to be added to. Null in a dry run.
  [[nodiscard]] float* gradients(std::size_t unit, std::size_t flat) const;

  void zero_gradients(cudaStream_t stream);
  /// Enqueues: own gradients = sum over the ranks, norm_squared = their sum of squares. The other ranks' gradients must
  /// be complete, and stay so until every rank is done with this.
  void reduce(const PeerArenas& peers, cudaStream_t stream);
  /// One double in device memory: reduce() leaves this rank's part of it there; update() takes the whole from it.
  [[nodiscard]] double* norm_squared() const { return norm_squared_.as<double>(); }
  /// Whether each rank's part is the whole (every rank reduces everything).
  [[nodiscard]] bool replicated() const { return shards_ == 1; }
  /// Enqueues one AdamW step on `parameters`, this rank's trainable shards, with the gradients scaled down to
  /// max_grad_norm (0: never). Changes nothing where norm_squared is not finite.
  void update(void* parameters, double max_grad_norm, double learning_rate, std::int64_t step, cudaStream_t stream);

  /// Offset of a trainable flat's shard in exp_avg and exp_avg_sq, in elements.
  [[nodiscard]] std::int64_t first_element(std::size_t unit, std::size_t flat) const;
  [[nodiscard]] DType moment_dtype() const { return moment_dtype_; }
  [[nodiscard]] const Arena::Piece& exp_avg() const { return exp_avg_; }
  [[nodiscard]] const Arena::Piece& exp_avg_sq() const { return exp_avg_sq_; }
  /// Sets all moments to zero.
  void clear(cudaStream_t stream);

 private:
  struct TrainableFlat {
    std::size_t unit;
    std::size_t flat;
    std::int64_t shard_elements;
    std::int64_t whole_begin;  // in elements, in the whole gradients
    std::int64_t shard_begin;  // in elements, in the shards
  };

  [[nodiscard]] const float* own_gradients() const;
  void add_up(const PeerArenas& peers, cudaStream_t stream) const;
  [[nodiscard]] const TrainableFlat& find(std::size_t unit, std::size_t flat) const;

  AdamWOptions options_;
  DType moment_dtype_;
  DType parameter_dtype_ = DType::bf16;
  std::size_t world_size_;
  std::size_t shards_;
  std::vector<TrainableFlat> flats_;
  std::int64_t whole_elements_ = 0;
  std::int64_t shard_elements_ = 0;
  Arena::Piece whole_;    // gradients, float
  Arena::Piece reduced_;  // of this rank's shards, float; empty where there is one rank
  Arena::Piece exp_avg_;
  Arena::Piece exp_avg_sq_;
  Arena::Piece partials_;
  Arena::Piece norm_squared_;
  Arena::Piece factor_;
};

}  // namespace qshard::optimized
