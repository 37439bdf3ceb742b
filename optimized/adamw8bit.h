#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "optimized/adamw.h"

namespace qshard::optimized {

/// A moment in 8 bits in device memory: element i is map[codes[i]] * absmax[i / kMomentBlocksize].
struct Moment8bit {
  std::uint8_t* codes = nullptr;
  float* absmax = nullptr;     // ceil(count / kMomentBlocksize)
  const float* map = nullptr;  // 256: dynamic_map() for exp_avg, unsigned_dynamic_map() for exp_avg_sq
};

/// One step of AdamW with moments in 8 bits, bitsandbytes' blockwise arithmetic, of `count` elements with g = gradient
/// * factor[0] rounded to float. Equal to the bit to reference::adamw8bit_update(), which states the formula. Blocks
/// are cut from the first element on. A factor that is not finite changes nothing; step.moment_dtype is not looked at.
/// parameter, gradient and codes aligned to 16 bytes. Moves 4 bytes of gradient, twice the parameter's and 4 of codes
/// an element. Deterministic. Throws Error(bad_input) for a bad pointer, dtype or step.
void adamw8bit_update(const AdamWStep& step, std::int64_t count, void* parameter, const float* gradient,
                      const float* factor, const Moment8bit& exp_avg, const Moment8bit& exp_avg_sq,
                      cudaStream_t stream);

}  // namespace qshard::optimized
