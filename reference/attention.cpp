#include "reference/attention.h"

#include <algorithm>
#include <cmath>

#include "reference/packed_matrix.h"
#include "reference/parallel.h"

namespace qshard::reference {
namespace {

constexpr std::int64_t kQueriesPerTile = 48;  // whole tiles of a product

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

/// Softmax of a tile's queries over the keys that each sees. The result is [tile.count, keys.whole_columns()], zero
/// where a query does not see a key and beyond tile.keys.
template <typename T>
Matrix<T> probabilities(const ConstMatrixRef<T>& q, const PackedMatrix<T>& keys, const Tile& tile, std::int64_t window,
                        T scale) {
  Matrix<T> p(tile.count, keys.whole_columns());
  keys.multiply(q, p);
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
    for (std::int64_t first = first_query; first < length; first += kQueriesPerTile) {
      const Tile tile = tile_at(first, length, shape.window);
      const PackedMatrix<T> k(key.block(keys_at[row] + tile.first_key, kv_head * d, tile.keys, d), true);
      const PackedMatrix<T> v(value.block(keys_at[row] + tile.first_key, kv_head * d, tile.keys, d), false);
      for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        const auto q = query.block(queries + first, head * d, tile.count, d);
        Matrix<T> p = probabilities<T>(q, k, tile, shape.window, scale);
        round_to(compute, p);
        auto o = out.block(queries + first, head * d, tile.count, d);
        v.multiply(p, o);
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
  AttentionGradients<T> gradients{Matrix<T>(query.rows(), query.cols()), Matrix<T>(key.rows(), key.cols()),
                                  Matrix<T>(value.rows(), value.cols())};
  for_each_row_and_kv_head(batch, shape, [&](std::size_t row, std::int64_t kv_head) {
    const std::int64_t start = batch.offsets[row];
    const std::int64_t length = batch.offsets[row + 1] - start;
    auto dk = gradients.key.block(start, kv_head * d, length, d);
    auto dv = gradients.value.block(start, kv_head * d, length, d);
    auto dq = gradients.query.block(start, kv_head * group * d, length, group * d);
    dk.setZero();
    dv.setZero();
    for (std::int64_t first = 0; first < length; first += kQueriesPerTile) {
      const Tile tile = tile_at(first, length, shape.window);
      const auto k = key.block(start + tile.first_key, kv_head * d, tile.keys, d);
      const auto v = value.block(start + tile.first_key, kv_head * d, tile.keys, d);
      const PackedMatrix<T> k_transposed(k, true), v_transposed(v, true), k_packed(k, false);
      for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        const auto q = query.block(start + first, head * d, tile.count, d);
        const auto d_o = dout.block(start + first, head * d, tile.count, d);

        const Matrix<T> p = probabilities<T>(q, k_transposed, tile, shape.window, scale);
        Matrix<T> rounded = p;
        round_to(compute, rounded);
        PackedMatrix<T>(d_o, false)
            .add_transposed_product(rounded.leftCols(tile.keys), dv.middleRows(tile.first_key, tile.keys));

        Matrix<T> ds(tile.count, v_transposed.whole_columns());
        v_transposed.multiply(d_o, ds);  // dp so far
        const Vector<T> mean = p.cwiseProduct(ds).rowwise().sum();
        ds = p.cwiseProduct(ds.colwise() - mean);
        round_to(compute, ds);
        k_packed.multiply(ds, gradients.query.block(start + first, head * d, tile.count, d));
        PackedMatrix<T>(q, false).add_transposed_product(ds.leftCols(tile.keys),
                                                         dk.middleRows(tile.first_key, tile.keys));
      }
    }
    dk *= scale;
    dq *= scale;
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
