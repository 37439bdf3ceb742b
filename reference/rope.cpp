#include "reference/rope.h"

#include "core/base/error.h"
#include "core/model/rope_table.h"
#include "reference/parallel.h"

namespace qshard::reference {
namespace {

/// Rotates by the table's angles with sin multiplied by `direction` (1 or -1).
template <typename T>
void rotate(const TokenBatch& batch, const RopeTable<T>& table, DType compute, T direction,
            std::span<const std::int64_t> first_positions, Matrix<T>& x) {
  const auto first_of = [&](std::int64_t row) {
    return first_positions.empty() ? 0 : first_positions[static_cast<std::size_t>(row)];
  };
  for (std::int64_t row = 0; row < batch.rows(); ++row) {
    const std::int64_t length = first_of(row) + batch.offsets[row + 1] - batch.offsets[row];
    if (length > table.cos.rows()) {
      fail_input("row {} of the batch has {} tokens, more than the {} positions of the model; shorten it", row, length,
                 table.cos.rows());
    }
  }
  const std::int64_t half = table.cos.cols();
  parallel_for(batch.rows(), 1, [&](std::int64_t row, std::int64_t) {
    Vector<T> first_sin(half), second_sin(half);
    for (std::int64_t token = batch.offsets[row]; token < batch.offsets[row + 1]; ++token) {
      const std::int64_t position = first_of(row) + token - batch.offsets[row];
      const auto cos = table.cos.row(position);
      for (std::int64_t head = 0; head < x.cols(); head += 2 * half) {
        auto first = x.row(token).segment(head, half);
        auto second = x.row(token).segment(head + half, half);
        first_sin = (first.cwiseProduct(table.sin.row(position)) * direction).transpose();
        second_sin = (second.cwiseProduct(table.sin.row(position)) * direction).transpose();
        first.array() *= cos.array();
        second.array() *= cos.array();
        round_to(compute, first_sin);
        round_to(compute, second_sin);
        round_to(compute, first);
        round_to(compute, second);
        first -= second_sin.transpose();
        second += first_sin.transpose();
        round_to(compute, first);
        round_to(compute, second);
      }
    }
  });
}

}  // namespace

template <typename T>
RopeTable<T> make_rope_table(const ModelConfig& config, std::int64_t positions, DType compute) {
  const RopeAngles angles = make_rope_angles(config, positions);
  const Eigen::Index half = config.head_dim / 2;
  RopeTable<T> table{Eigen::Map<const Matrix<float>>(angles.cos.data(), positions, half).template cast<T>(),
                     Eigen::Map<const Matrix<float>>(angles.sin.data(), positions, half).template cast<T>()};
  round_to(compute, table.cos);
  round_to(compute, table.sin);
  return table;
}

template <typename T>
void rope_forward(const TokenBatch& batch, const RopeTable<T>& table, DType compute, Matrix<T>& x,
                  std::span<const std::int64_t> first_positions) {
  rotate(batch, table, compute, T(1), first_positions, x);
}

template <typename T>
void rope_backward(const TokenBatch& batch, const RopeTable<T>& table, DType compute, Matrix<T>& dx) {
  rotate(batch, table, compute, T(-1), {}, dx);
}

template RopeTable<float> make_rope_table(const ModelConfig&, std::int64_t, DType);
template RopeTable<double> make_rope_table(const ModelConfig&, std::int64_t, DType);
template void rope_forward(const TokenBatch&, const RopeTable<float>&, DType, Matrix<float>&,
                           std::span<const std::int64_t>);
template void rope_forward(const TokenBatch&, const RopeTable<double>&, DType, Matrix<double>&,
                           std::span<const std::int64_t>);
template void rope_backward(const TokenBatch&, const RopeTable<float>&, DType, Matrix<float>&);
template void rope_backward(const TokenBatch&, const RopeTable<double>&, DType, Matrix<double>&);

}  // namespace qshard::reference
