#include "reference/attention.h"

#include <algorithm>
#include <cmath>

#include "reference/parallel.h"

namespace qshard::reference {
namespace {

constexpr std::int64_t kQueriesPerTile = 128;

/// Calls body(start, length, kv_head) for every row and key/value head of the batch: what one task works on alone.
template <typename Body>
void for_each_row_and_kv_head(const TokenBatch& batch, const AttentionShape& shape, const Body& body) {
  parallel_for(batch.rows() * shape.kv_heads, 1, [&](std::int64_t begin, std::int64_t) {
    const auto row = static_cast<std::size_t>(begin / shape.kv_heads);
    const std::int64_t start = batch.offsets[row];
    body(start, batch.offsets[row + 1] - start, begin % shape.kv_heads);
  });
}

/// Causal softmax of the queries [first, first + q.rows()) of a row over its keys; k holds those before
/// first + q.rows(). The result is [q.rows(), k.rows()], zero where a key lies after its query.
template <typename T, typename Queries, typename Keys>
Matrix<T> probabilities(const Queries& q, const Keys& k, std::int64_t first, T scale) {
  Matrix<T> p(q.rows(), k.rows());
  p.noalias() = q * k.transpose();
  for (std::int64_t i = 0; i < p.rows(); ++i) {
    const std::int64_t visible = first + i + 1;
    auto scores = p.row(i).head(visible).array();
    scores = ((scores - scores.maxCoeff()) * scale).exp();
    scores /= scores.sum();
    p.row(i).tail(p.cols() - visible).setZero();
  }
  return p;
}

}  // namespace

template <typename T>
Matrix<T> attention_forward(const TokenBatch& batch, const AttentionShape& shape, DType compute, const Matrix<T>& query,
                            const Matrix<T>& key, const Matrix<T>& value) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t group = shape.heads / shape.kv_heads;
  const T scale = T(1) / std::sqrt(static_cast<T>(d));
  Matrix<T> out(query.rows(), query.cols());
  for_each_row_and_kv_head(batch, shape, [&](std::int64_t start, std::int64_t length, std::int64_t kv_head) {
    for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (std::int64_t first = 0; first < length; first += kQueriesPerTile) {
        const std::int64_t count = std::min(kQueriesPerTile, length - first);
        const auto q = query.block(start + first, head * d, count, d);
        const auto k = key.block(start, kv_head * d, first + count, d);
        const auto v = value.block(start, kv_head * d, first + count, d);
        Matrix<T> p = probabilities<T>(q, k, first, scale);
        round_to(compute, p);
        auto o = out.block(start + first, head * d, count, d);
        o.noalias() = p * v;
        round_to(compute, o);
      }
    }
  });
  return out;
}

template <typename T>
AttentionGradients<T> attention_backward(const TokenBatch& batch, const AttentionShape& shape, DType compute,
                                         const Matrix<T>& query, const Matrix<T>& key, const Matrix<T>& value,
                                         const Matrix<T>& dout) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t group = shape.heads / shape.kv_heads;
  const T scale = T(1) / std::sqrt(static_cast<T>(d));
  AttentionGradients<T> gradients{Matrix<T>::Zero(query.rows(), query.cols()), Matrix<T>::Zero(key.rows(), key.cols()),
                                  Matrix<T>::Zero(value.rows(), value.cols())};
  for_each_row_and_kv_head(batch, shape, [&](std::int64_t start, std::int64_t length, std::int64_t kv_head) {
    for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (std::int64_t first = 0; first < length; first += kQueriesPerTile) {
        const std::int64_t count = std::min(kQueriesPerTile, length - first);
        const auto q = query.block(start + first, head * d, count, d);
        const auto k = key.block(start, kv_head * d, first + count, d);
        const auto v = value.block(start, kv_head * d, first + count, d);
        const auto d_o = dout.block(start + first, head * d, count, d);

        const Matrix<T> p = probabilities<T>(q, k, first, scale);
        Matrix<T> rounded = p;
        round_to(compute, rounded);
        gradients.value.block(start, kv_head * d, first + count, d).noalias() += rounded.transpose() * d_o;

        Matrix<T> ds = d_o * v.transpose();  // dp so far
        const Vector<T> mean = p.cwiseProduct(ds).rowwise().sum();
        ds = p.cwiseProduct(ds.colwise() - mean);
        round_to(compute, ds);
        gradients.query.block(start + first, head * d, count, d).noalias() = scale * (ds * k);
        gradients.key.block(start, kv_head * d, first + count, d).noalias() += scale * (ds.transpose() * q);
      }
    }
    auto dk = gradients.key.block(start, kv_head * d, length, d);
    auto dv = gradients.value.block(start, kv_head * d, length, d);
    auto dq = gradients.query.block(start, kv_head * group * d, length, group * d);
    round_to(compute, dk);
    round_to(compute, dv);
    round_to(compute, dq);
  });
  return gradients;
}

template Matrix<float> attention_forward(const TokenBatch&, const AttentionShape&, DType, const Matrix<float>&,
                                         const Matrix<float>&, const Matrix<float>&);
template Matrix<double> attention_forward(const TokenBatch&, const AttentionShape&, DType, const Matrix<double>&,
                                          const Matrix<double>&, const Matrix<double>&);
template AttentionGradients<float> attention_backward(const TokenBatch&, const AttentionShape&, DType,
                                                      const Matrix<float>&, const Matrix<float>&, const Matrix<float>&,
                                                      const Matrix<float>&);
template AttentionGradients<double> attention_backward(const TokenBatch&, const AttentionShape&, DType,
                                                       const Matrix<double>&, const Matrix<double>&,
                                                       const Matrix<double>&, const Matrix<double>&);

}  // namespace qshard::reference
