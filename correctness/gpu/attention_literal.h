#pragma once

#include <cstdint>
#include <vector>

#include "optimized/attention/attention.h"
#include "reference/matrix.h"

namespace qshard::test {

/// How a kernel rounds, for the bounds of what it computes.
struct AttentionRounding {
  double result = 0;   // unit roundoff of the results
  double weights = 0;  // of p and ds before they are multiplied; 0: they stay in float
  double tiny = 0;     // largest error of rounding a subnormal number of the dtype
};

/// Values in double and how far from each a kernel may be.
struct BoundedMatrix {
  reference::Matrix<double> value;
  reference::Matrix<double> bound;
};

struct LiteralAttention {
  BoundedMatrix o, lse, dq, dk, dv;  // lse: [tokens, heads]
};

/// The definitions in attention.h by plain loops in double, and for each element a bound that follows from them:
/// - a score s = scale q . k of a kernel is off by (head_dim + 8) 2^-23 scale sum |q_c k_c| (products of 16-bit numbers
///   are exact, the matrix units may truncate each addition) and by 2^-22 (|s| + |lse| + 1) where it is scaled,
///   subtracted and lse added; e_i is the greatest of a query's keys. p is then off by 2 e_i p, as the sum that divides
///   it is off by as much, and by `weights` p where it is rounded.
/// - a sum of n terms is off by (n + 8) 2^-23 of the sum of their magnitudes, and a result by `result` of itself.
/// - delta_i = do_i . o_i takes over the error of o: sum |do_ic| bound(o_ic).
/// Everything that is second order in these is covered by 1 % more.
LiteralAttention literal_attention(const optimized::AttentionShape& shape, const std::vector<std::int32_t>& offsets,
                                   const AttentionRounding& rounding, const reference::Matrix<double>& q,
                                   const reference::Matrix<double>& k, const reference::Matrix<double>& v,
                                   const reference::Matrix<double>& dout);

}  // namespace qshard::test
