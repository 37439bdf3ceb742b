#include "reference/rope.h"

#include <cmath>
#include <numbers>

#include "core/base/error.h"
#include "reference/parallel.h"

namespace qshard::reference {
namespace {

float scale_frequency(float frequency, const Llama3RopeScaling& scaling) {
  const auto factor = static_cast<float>(scaling.factor);
  const auto low = static_cast<float>(scaling.low_freq_factor);
  const auto high = static_cast<float>(scaling.high_freq_factor);
  const auto length = static_cast<float>(scaling.original_max_position_embeddings);
  const float wavelength = 2 * std::numbers::pi_v<float> / frequency;
  if (wavelength < length / high) return frequency;
  if (wavelength > length / low) return frequency / factor;
  const float smooth = (length / wavelength - low) / (high - low);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

/// Rotates by the table's angles with sin multiplied by `direction` (1 or -1).
template <typename T>
void rotate(const TokenBatch& batch, const RopeTable<T>& table, DType compute, T direction, Matrix<T>& x) {
  for (std::int64_t row = 0; row < batch.rows(); ++row) {
    const std::int64_t length = batch.offsets[row + 1] - batch.offsets[row];
    if (length > table.cos.rows()) {
      fail_input("row {} of the batch has {} tokens, more than the {} positions of the model; shorten it", row, length,
                 table.cos.rows());
    }
  }
  const std::int64_t half = table.cos.cols();
  parallel_for(batch.rows(), 1, [&](std::int64_t row, std::int64_t) {
    for (std::int64_t token = batch.offsets[row]; token < batch.offsets[row + 1]; ++token) {
      const std::int64_t position = token - batch.offsets[row];
      const auto cos = table.cos.row(position);
      for (std::int64_t head = 0; head < x.cols(); head += 2 * half) {
        auto first = x.row(token).segment(head, half);
        auto second = x.row(token).segment(head + half, half);
        Vector<T> first_sin = (first.cwiseProduct(table.sin.row(position)) * direction).transpose();
        Vector<T> second_sin = (second.cwiseProduct(table.sin.row(position)) * direction).transpose();
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

std::vector<float> rope_frequencies(const ModelConfig& config) {
  const auto half = static_cast<std::size_t>(config.head_dim / 2);
  std::vector<float> frequencies(half);
  for (std::size_t i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    frequencies[i] = 1.0F / std::pow(static_cast<float>(config.rope_theta), exponent);
    if (config.rope_scaling) frequencies[i] = scale_frequency(frequencies[i], *config.rope_scaling);
  }
  return frequencies;
}

template <typename T>
RopeTable<T> make_rope_table(const ModelConfig& config, std::int64_t positions, DType compute) {
  const std::vector<float> frequencies = rope_frequencies(config);
  const auto half = static_cast<Eigen::Index>(frequencies.size());
  RopeTable<T> table{Matrix<T>(positions, half), Matrix<T>(positions, half)};
  for (Eigen::Index position = 0; position < positions; ++position) {
    for (Eigen::Index i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position) * frequencies[static_cast<std::size_t>(i)];
      table.cos(position, i) = static_cast<T>(std::cos(angle));
      table.sin(position, i) = static_cast<T>(std::sin(angle));
    }
  }
  round_to(compute, table.cos);
  round_to(compute, table.sin);
  return table;
}

template <typename T>
void rope_forward(const TokenBatch& batch, const RopeTable<T>& table, DType compute, Matrix<T>& x) {
  rotate(batch, table, compute, T(1), x);
}

template <typename T>
void rope_backward(const TokenBatch& batch, const RopeTable<T>& table, DType compute, Matrix<T>& dx) {
  rotate(batch, table, compute, T(-1), dx);
}

template RopeTable<float> make_rope_table(const ModelConfig&, std::int64_t, DType);
template RopeTable<double> make_rope_table(const ModelConfig&, std::int64_t, DType);
template void rope_forward(const TokenBatch&, const RopeTable<float>&, DType, Matrix<float>&);
template void rope_forward(const TokenBatch&, const RopeTable<double>&, DType, Matrix<double>&);
template void rope_backward(const TokenBatch&, const RopeTable<float>&, DType, Matrix<float>&);
template void rope_backward(const TokenBatch&, const RopeTable<double>&, DType, Matrix<double>&);

}  // namespace qshard::reference
