#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/model/model_config.h"
#include "core/tensor/dtype.h"
#include "optimized/device/arena.h"

namespace qshard::optimized {

/// The rotary tables in device memory, float, rounded to `dtype`: [positions, head_dim / 2] each.
class RopeTables {
 public:
  RopeTables(const ModelConfig& config, DType dtype, std::int64_t positions, Arena& arena);

  /// Makes the tables right for rows of up to `longest` tokens; copies only where that changes them, and then waits for
  /// the copy. Throws Error(bad_input) where `longest` exceeds the positions that memory was planned for.
  void cover(std::int64_t longest, cudaStream_t stream);

  [[nodiscard]] const float* cos() const { return cos_.as<float>(); }
  [[nodiscard]] const float* sin() const { return sin_.as<float>(); }

 private:
  const ModelConfig* config_;
  DType dtype_;
  std::int64_t positions_;
  std::int64_t covered_ = 0;  // the rows that the tables were made for; 0: not yet
  Arena::Piece cos_;
  Arena::Piece sin_;
};

}  // namespace qshard::optimized
