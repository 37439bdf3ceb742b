#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <cuda_runtime_api.h>

#include "core/run/adamw_options.h"
#include "core/sharding/shard_layout.h"
#include "optimized/device/arena.h"
#include "optimized/sharded/adapter_moments.h"
#include "optimized/sharded/device_shards.h"

namespace qshard::optimized {

/// AdamW state of the adapters on one rank: the moments of the rank's shards (of everything under NO_SHARD), kept as
/// options.moments says.
class AdapterOptimizer {
 public:
  AdapterOptimizer(const ShardLayout& layout, const ShardPlaces& places, const AdamWOptions& options, Arena& arena);

  /// Enqueues: norm_squared = sum of the squares of the gradients of this rank's shards (AdapterGradients::own()).
  void sum_squares_of(const float* gradients, cudaStream_t stream);
  /// One double in device memory: sum_squares_of() leaves this rank's part there; update() takes the whole from it.
  [[nodiscard]] double* norm_squared() const { return norm_squared_.as<double>(); }
  /// Enqueues one AdamW step on `parameters`, this rank's trainable shards, with the gradients scaled down to
  /// max_grad_norm (0: never). Changes nothing where norm_squared is not finite.
  void update(void* parameters, const float* gradients, double max_grad_norm, double learning_rate, std::int64_t step,
              cudaStream_t stream);

  /// Of a trainable flat's shard among the elements of the moments.
  [[nodiscard]] std::int64_t first_element(std::size_t unit, std::size_t flat) const {
    return first_elements_[unit][flat];
  }
  [[nodiscard]] const AdapterMoments& moments() const { return moments_; }
  /// Sets all moments to zero.
  void clear(cudaStream_t stream) { moments_.clear(stream); }

 private:
  std::int64_t elements_ = 0;
  std::vector<std::vector<std::int64_t>> first_elements_;  // of trainable flats, by unit and flat
  AdapterMoments moments_;
  Arena::Piece partials_;
  Arena::Piece norm_squared_;
  Arena::Piece factor_;
};

}  // namespace qshard::optimized
