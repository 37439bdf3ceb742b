#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "core/tensor/codebook.h"

namespace qshard::oracle {

// A second opinion on 4-bit quantization for tests: one element after the other, in double, with nothing shared with
// the implementation but the reciprocal, which reciprocal_test covers. Thresholds are decimal literals here.

inline double flush(double value) {
  return std::fabs(value) < 0x1p-126 ? std::copysign(0.0, value) : value;
}

/// The exact product of two floats fits a double, so that rounding it to float is the float product.
inline float product(float a, float b) {
  const double exact = flush(a) * flush(b);
  const float rounded = static_cast<float>(exact * 0x1p64);  // to 24 bits, far from the smallest exponent
  return static_cast<float>(std::fabs(rounded) < 0x1p-62F ? std::copysign(0.0, exact) : exact);
}

inline int nf4_code(float x) {
  const double thresholds[] = {-0.8480964004993439,  -0.6106329262256622,  -0.4599952697753906,   -0.33967943489551544,
                               -0.23460740596055984, -0.13791173323988914, -0.045525018125772476, 0.03979014977812767,
                               0.1202552504837513,   0.2035212516784668,   0.2920137718319893,    0.3893125355243683,
                               0.5016634166240692,   0.6427869200706482,   0.8614784181118011};
  int code = 0;
  for (const double threshold : thresholds) {
    if (x > static_cast<float>(threshold)) ++code;
  }
  return code;
}

inline int fp4_code(float x) {
  if (std::isnan(x)) return 0;
  const int sign = x < 0 ? 8 : 0;
  const float magnitude = std::fabs(x);
  if (magnitude > 0.8333333F) return sign + 3;
  if (magnitude > 0.583333F) return sign + 2;
  if (magnitude > 0.4166667F) return sign + 5;
  if (magnitude > 0.29166667F) return sign + 4;
  if (magnitude > 0.20833333F) return sign + 7;
  if (magnitude > 0.0859375F) return sign + 6;
  if (magnitude > 0.00260417F) return sign + 1;
  return sign;
}

struct Quantized {
  std::vector<float> absmax;
  std::vector<int> codes;  // one an element, and one more for the partner of an odd last element
};

/// `reciprocal_of(absmax)` is the block's scale.
template <typename ReciprocalOf>
Quantized quantize(const std::vector<float>& values, QuantType type, int blocksize, ReciprocalOf reciprocal_of) {
  Quantized result;
  std::vector<float> padded = values;
  while (padded.size() % static_cast<std::size_t>(blocksize) != 0) padded.push_back(0.0F);
  for (std::size_t first = 0; first < padded.size(); first += static_cast<std::size_t>(blocksize)) {
    double absmax = -3.4028234663852886e38;
    for (std::size_t i = first; i < first + static_cast<std::size_t>(blocksize); ++i) {
      absmax = std::fmax(absmax, std::fabs(flush(padded[i])));
    }
    result.absmax.push_back(static_cast<float>(absmax));
    const float scale = reciprocal_of(static_cast<float>(absmax));
    for (std::size_t i = first; i < first + static_cast<std::size_t>(blocksize); ++i) {
      const float x = product(padded[i], scale);
      result.codes.push_back(type == QuantType::nf4 ? nf4_code(x) : fp4_code(x));
    }
  }
  result.codes.resize(values.size() + values.size() % 2);
  return result;
}

}  // namespace qshard::oracle
