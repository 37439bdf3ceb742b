#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <cuda_runtime_api.h>

#include "core/training/moment_arrays.h"
#include "optimized/device/arena.h"

namespace qshard::optimized {

/// AdamW's moments of one rank's trainable shards, all shards as one string of elements, in the arrays of
/// moment_arrays().
class AdapterMoments {
 public:
  AdapterMoments() = default;
  AdapterMoments(const AdamWOptions& options, DType parameter_dtype, std::int64_t elements, Arena& arena);

  /// Enqueues: all moments are 0. To be called before anything else is done with the moments.
  void clear(cudaStream_t stream);

  /// Enqueues one AdamW step of all elements: adamw_update() or adamw8bit_update().
  void update(void* parameters, const float* gradients, const float* factor, double learning_rate, std::int64_t step,
              cudaStream_t stream);

  [[nodiscard]] const std::vector<MomentArray>& arrays() const { return arrays_; }
  /// Where an array's value for an element (a multiple of kMomentBlocksize) lies.
  [[nodiscard]] std::byte* at(std::size_t array, std::int64_t element) const;

 private:
  [[nodiscard]] bool is_8bit() const { return options_.moments == MomentFormat::blockwise_8bit; }

  AdamWOptions options_;
  DType parameter_dtype_ = DType::bf16;
  std::int64_t elements_ = 0;
  std::vector<MomentArray> arrays_;
  std::vector<Arena::Piece> pieces_;  // of arrays_
  Arena::Piece maps_;                 // of 8-bit moments: dynamic_map(), then unsigned_dynamic_map()
};

}  // namespace qshard::optimized
