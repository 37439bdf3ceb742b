#include "reference/attention.h"

#include <algorithm>
#include <cmath>

#include "reference/parallel.h"

namespace qshard::reference {
namespace {

constexpr std::int64_t kQueriesPerTile = 64;

/// Calls body(row, kv_head) for every row and key/value head of the batch: what one task works on alone.
template <typename Body>
void for_each_row_and_kv_head(const TokenBatch& batch, const AttentionShape& shape, const Body& body) {
  parallel_for(batch.rows() * shape.kv_heads, 1, [&](std::int64_t begin, std::int64_t) {
    body(static_cast<std::size_t>(begin / shape.kv_heads), begin % shape.kv_heads);
  });
}

/// The queries [first, first + count) of a row, and the keys [first_key, first_key + keys) that any of them sees.
struct Tile {
  std::int64_t first;
  std::int64_t count;
  std::int64_t first_key;
  std::int64_t keys;
};

/// The tile that begins at position `first` of a row whose last query is at position length - 1.
Tile tile_at(std::int64_t first, std::int64_t length, std::int64_t window) {
  const std::int64_t count = std::min(kQueriesPerTile, length - first);
  const std::int64_t first_key = window == 0 ? 0 : std::max<std::int64_t>(0, first - window + 1);
  return {first, count, first_key, first + count - first_key};
}

/// Softmax of a tile's queries over the keys that each sees. The result is [tile.count, tile.keys], zero where a query
/// does not see a key.
template <typename T, typename Queries, typename Keys>
Matrix<T> probabilities(const Queries& q, const Keys& k, const Tile& tile, std::int64_t window, T scale) {
  Matrix<T> p(q.rows(), k.rows());
  p.noalias() = q * k.transpose();
  for (std::int64_t i = 0; i < p.rows(); ++i) {
    const std::int64_t end = tile.first + i + 1 - tile.first_key;
    const std::int64_t begin = window == 0 ? 0 : std::max<std::int64_t>(0, end - window);
    auto scores = p.row(i).segment(begin, end - begin).array();
    scores = ((scores - scores.maxCoeff()) * scale).exp();
    scores /= scores.sum();
    p.row(i).head(begin).setZero();
    p.row(i).tail(p.cols() - end).setZero();
  }
  return p;
}

}  // namespace

template <typename T>
Matrix<T> attention_forward(const TokenBatch& batch, const AttentionShape& shape, DType compute, const Matrix<T>& query,
                            const Matrix<T>& key, const Matrix<T>& value, std::span<const std::int64_t> key_offsets) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t group = shape.heads / shape.kv_heads;
  const T scale = T(1) / std::sqrt(static_cast<T>(d));
  const std::span<const std::int64_t> keys_at = key_offsets.empty() ? std::span(batch.offsets) : key_offsets;
  Matrix<T> out(query.rows(), query.cols());
  for_each_row_and_kv_head(batch, shape, [&](std::size_t row, std::int64_t kv_head) {
    const std::int64_t length = keys_at[row + 1] - keys_at[row];
    const std::int64_t first_query = length - (batch.offsets[row + 1] - batch.offsets[row]);
    const std::int64_t queries = batch.offsets[row] - first_query;  // where the query of position 0 would lie
    for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (std::int64_t first = first_query; first < length; first += kQueriesPerTile) {
        const Tile tile = tile_at(first, length, shape.window);
        const auto q = query.block(queries + first, head * d, tile.count, d);
        const auto k = key.block(keys_at[row] + tile.first_key, kv_head * d, tile.keys, d);
        const auto v = value.block(keys_at[row] + tile.first_key, kv_head * d, tile.keys, d);
        Matrix<T> p = probabilities<T>(q, k, tile, shape.window, scale);
        round_to(compute, p);
        auto o = out.block(queries + first, head * d, tile.count, d);
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
  for_each_row_and_kv_head(batch, shape, [&](std::size_t row, std::int64_t kv_head) {
    const std::int64_t start = batch.offsets[row];
    const std::int64_t length = batch.offsets[row + 1] - start;
    for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (std::int64_t first = 0; first < length; first += kQueriesPerTile) {
        const Tile tile = tile_at(first, length, shape.window);
        const auto q = query.block(start + first, head * d, tile.count, d);
        const auto k = key.block(start + tile.first_key, kv_head * d, tile.keys, d);
        const auto v = value.block(start + tile.first_key, kv_head * d, tile.keys, d);
        const auto d_o = dout.block(start + first, head * d, tile.count, d);

        const Matrix<T> p = probabilities<T>(q, k, tile, shape.window, scale);
        Matrix<T> rounded = p;
        round_to(compute, rounded);
        gradients.value.block(start + tile.first_key, kv_head * d, tile.keys, d).noalias() += rounded.transpose() * d_o;

        Matrix<T> ds = d_o * v.transpose();  // dp so far
        const Vector<T> mean = p.cwiseProduct(ds).rowwise().sum();
        ds = p.cwiseProduct(ds.colwise() - mean);
        round_to(compute, ds);
        gradients.query.block(start + first, head * d, tile.count, d).noalias() = scale * (ds * k);
        gradients.key.block(start + tile.first_key, kv_head * d, tile.keys, d).noalias() +=
            scale * (ds.transpose() * q);
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
                                         const Matrix<float>&, const Matrix<float>&, std::span<const std::int64_t>);
template Matrix<double> attention_forward(const TokenBatch&, const AttentionShape&, DType, const Matrix<double>&,
                                          const Matrix<double>&, const Matrix<double>&, std::span<const std::int64_t>);
template AttentionGradients<float> attention_backward(const TokenBatch&, const AttentionShape&, DType,
                                                      const Matrix<float>&, const Matrix<float>&, const Matrix<float>&,
                                                      const Matrix<float>&);
template AttentionGradients<double> attention_backward(const TokenBatch&, const AttentionShape&, DType,
                                                       const Matrix<double>&, const Matrix<double>&,
                                                       const Matrix<double>&, const Matrix<double>&);

}  // namespace qshard::reference
