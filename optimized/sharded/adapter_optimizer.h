#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <cuda_runtime_api.h>

#include "core/run/engine_options.h"
#include "core/sharding/shard_layout.h"
#include "optimized/device/arena.h"
#include "optimized/sharded/device_shards.h"

namespace qshard::optimized {

/// AdamW state of the adapters on one rank: the moments of the rank's shards (of everything under NO_SHARD), in
/// `moment_dtype`.
class AdapterOptimizer {
 public:
  AdapterOptimizer(const ShardLayout& layout, const ShardPlaces& places, const AdamWOptions& options,
                   DType moment_dtype, Arena& arena);

  /// Enqueues: norm_squared = sum of the squares of the gradients of this rank's shards (AdapterGradients::own()).
  void sum_squares_of(const float* gradients, cudaStream_t stream);
  /// One double in device memory: sum_squares_of() leaves this rank's part there; update() takes the whole from it.
  [[nodiscard]] double* norm_squared() const { return norm_squared_.as<double>(); }
  /// Enqueues one AdamW step on `parameters`, this rank's trainable shards, with the gradients scaled down to
  /// max_grad_norm (0: never). Changes nothing where norm_squared is not finite.
  void update(void* parameters, const float* gradients, double max_grad_norm, double learning_rate, std::int64_t step,
              cudaStream_t stream);

  /// Offset of a trainable flat's shard in exp_avg and exp_avg_sq, in elements.
  [[nodiscard]] std::int64_t first_element(std::size_t unit, std::size_t flat) const {
    return first_elements_[unit][flat];
  }
  [[nodiscard]] DType moment_dtype() const { return moment_dtype_; }
  [[nodiscard]] const Arena::Piece& exp_avg() const { return exp_avg_; }
  [[nodiscard]] const Arena::Piece& exp_avg_sq() const { return exp_avg_sq_; }
  /// Sets all moments to zero.
  void clear(cudaStream_t stream);

 private:
  AdamWOptions options_;
  DType moment_dtype_;
  DType parameter_dtype_ = DType::bf16;
  std::int64_t elements_ = 0;
  std::vector<std::vector<std::int64_t>> first_elements_;  // of trainable flats, by unit and flat
  Arena::Piece exp_avg_;
  Arena::Piece exp_avg_sq_;
  Arena::Piece partials_;
  Arena::Piece norm_squared_;
  Arena::Piece factor_;
};

}  // namespace qshard::optimized
