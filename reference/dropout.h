#pragma once

#include <cstdint>

#include "core/training/token_batch.h"
#include "reference/matrix.h"

namespace qshard::reference {

/// Which mask: everything that it depends on besides the token and the feature.
struct DropoutPlace {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::uint32_t layer = 0;       // below 4096
  std::uint32_t projection = 0;  // below 16
};

/// Inverted dropout in place: every element becomes 0 with `probability` and x / (1 - probability), rounded to
/// `compute`, otherwise. The same call on the gradient is the backward pass. values: [tokens of the batch, features].
///
/// A mask is a pure function of its place, whatever the batch is cut into. Feature f of a token uses word f mod 4 of
///   philox4x32({position in its row, f / 4 + 2^16 layer + 2^28 projection, row id mod 2^32, step mod 2^32},
///              {seed mod 2^32, seed / 2^32})
/// and is kept where that word is at least probability * 2^32, rounded down. Throws Error(bad_input) for a probability
/// outside [0, 1) and for layers, projections or features (2^18) that do not fit their bits.
template <typename T>
void dropout(const DropoutPlace& place, double probability, const TokenBatch& batch, DType compute, Matrix<T>& values);

}  // namespace qshard::reference
