#pragma once

#include <cstdint>
#include <span>

#include "core/run/adamw_options.h"

namespace qshard::reference {

/// A moment in 8 bits: element i is map[codes[i]] * absmax[i / kMomentBlocksize], rounded to float. The map is
/// dynamic_map() for exp_avg and unsigned_dynamic_map() for exp_avg_sq. All zero bytes are moments of 0.
struct Moment8bit {
  std::span<std::uint8_t> codes;
  std::span<float> absmax;  // one a block; the last block may be shorter
};

/// One step of AdamW with moments in 8 bits, the arithmetic of bitsandbytes' blockwise CUDA kernel
/// (kOptimizerStatic8bit2StateBlockwise, 0.50.2; arXiv 2110.02861), elementwise, g = gradient, c1 = 1 - beta1^step,
/// c2 = sqrt(1 - beta2^step), beta1 and beta2 rounded to float:
///   m <- beta1 m + (1 - beta1) g              exp_avg
///   v <- beta2 v + (1 - beta2) g g            exp_avg_sq
///   p <- p - lr c2 / c1 * (m / (sqrt(v) + c2 * epsilon)), rounded to `dtype`
///   p <- p (1 - lr * weight_decay), rounded to `dtype`: after the update; left out where weight_decay is 0
/// Then m and v are quantized: absmax is a block's largest magnitude, NaN left out, and the code that of the map's
/// entry nearest to m / absmax (nearest_code()); where that entry's sign is not m's the code moves by one towards it. p
/// comes from m and v as they are before. Where g is not finite m and v become 0 and p stays. Each operation rounds to
/// float (factors once, from double); bitsandbytes fuses products with sums, divides approximately and takes its powers
/// from the hardware's logarithm, so that codes differ from its by one where a value lies at the middle of two entries.
/// A parameter's shard gives the whole's result where it begins at a multiple of kMomentBlocksize. Deterministic.
void adamw8bit_update(std::span<float> parameter, std::span<const float> gradient, const Moment8bit& exp_avg,
                      const Moment8bit& exp_avg_sq, const AdamWOptions& options, DType dtype, double learning_rate,
                      std::int64_t step);

}  // namespace qshard::reference
