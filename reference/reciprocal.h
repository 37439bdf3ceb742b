#pragma once

#include <cstdint>

namespace qshard::reference {

/// Which 1 / absmax scales a block before its codes are chosen.
enum class Reciprocal : std::uint8_t {
  gpu,   // the GPU's rcp.approx.ftz.f32, as bitsandbytes' kernels compute it; the default
  ieee,  // 1.0f / absmax, correctly rounded
};

/// 1 / x in float. gpu: subnormal x counts as zero, a subnormal result is flushed to zero, 1 / 0 is infinity; never
/// more than one ulp from ieee, and the difference depends on the mantissa alone (table read off an sm_90 GPU).
/// Deterministic.
float reciprocal(float x, Reciprocal kind);

}  // namespace qshard::reference
