#pragma once

#include <cstdint>

#include "reference/matrix.h"

namespace qshard::reference {

/// Tokens that one task of a parallel loop covers; a constant, so that the pieces and with them the bits of a result
/// never depend on the number of threads.
inline constexpr std::int64_t kTokensPerPiece = 24;

/// The three matrix products of a linear layer y = x w^T with x [tokens, in], w [out, in]. Those to [tokens, ...] round
/// every element of their result to `compute`; all sums are in T. 2 * tokens * in * out operations each. Deterministic
/// on any number of threads: those are split by tokens, the sum over tokens by features, never along a sum.

/// x w^T + bias, [tokens, out], rounded once; bias [out], or empty for none.
template <typename T>
Matrix<T> times_transposed(const Matrix<T>& x, const Matrix<T>& w, DType compute, const Vector<T>& bias = {});

/// dy w, [tokens, in], with dy [tokens, out].
template <typename T>
Matrix<T> times(const Matrix<T>& dy, const Matrix<T>& w, DType compute);

/// values += dy w, with dy w rounded before it is added and the sum after. No matrix in between.
template <typename T>
void add_times(const Matrix<T>& dy, const Matrix<T>& w, DType compute, Matrix<T>& values);

/// sum += dy^T x, a sum over all tokens; dy [tokens, out], x [tokens, in], sum [out, in]. Not rounded.
template <typename T>
void add_transposed_times(const Matrix<T>& dy, const Matrix<T>& x, Matrix<T>& sum);

/// values += addend, every element of the result rounded to `compute`. Same shapes.
template <typename T>
void add_rounded(const Matrix<T>& addend, DType compute, Matrix<T>& values);

}  // namespace qshard::reference
