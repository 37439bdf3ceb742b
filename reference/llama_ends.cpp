#include "reference/llama_ends.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/base/error.h"
#include "reference/cross_entropy.h"
#include "reference/matrix_product.h"
#include "reference/parallel.h"
#include "reference/rmsnorm.h"

namespace qshard::reference {
namespace {

/// The positions that predict a label, and the labels.
struct Predictions {
  std::vector<Eigen::Index> positions;
  std::vector<std::int32_t> labels;
};

Predictions find_predictions(const TokenBatch& batch, std::int64_t vocabulary) {
  Predictions found{predicting_positions(batch), {}};
  for (const Eigen::Index position : found.positions) {
    const std::int32_t label = batch.labels[static_cast<std::size_t>(position) + 1];
    if (label < 0 || label >= vocabulary) {
      const auto row = std::ranges::upper_bound(batch.offsets, position) - batch.offsets.begin() - 1;
      fail_input(
          "row {}, position {}: label {} is outside the vocabulary of {}; the data set was made for another "
          "tokenizer, or its labels use another value than {} for what takes no part in the loss",
          row, position + 1 - batch.offsets[static_cast<std::size_t>(row)], label, vocabulary, kIgnoredLabel);
    }
    found.labels.push_back(label);
  }
  return found;
}

TensorView table_row(const TensorView& table, std::int32_t index) {
  const std::int64_t features = table.shape[1];
  const std::size_t bytes = static_cast<std::size_t>(features) * size_of(table.dtype);
  return {table.dtype, {features}, table.bytes.subspan(static_cast<std::size_t>(index) * bytes, bytes)};
}

}  // namespace

template <typename T>
Matrix<T> embed(const EndWeights<T>& weights, const TokenBatch& batch) {
  const std::int64_t vocabulary = weights.embedding.shape[0];
  Matrix<T> x(batch.tokens(), weights.embedding.shape[1]);
  for (std::int64_t row = 0; row < batch.rows(); ++row) {
    for (std::int64_t token = batch.offsets[row]; token < batch.offsets[row + 1]; ++token) {
      const std::int32_t id = batch.input_ids[static_cast<std::size_t>(token)];
      if (id < 0 || id >= vocabulary) {
        fail_input(
            "row {}, position {}: token id {} is outside the vocabulary of {}; the data set was made for "
            "another tokenizer",
            row, token - batch.offsets[row], id, vocabulary);
      }
      const std::vector<float> values = to_floats(table_row(weights.embedding, id));
      x.row(token) = Eigen::Map<const Vector<float>>(values.data(), x.cols()).template cast<T>().transpose();
    }
  }
  return x;
}

template <typename T>
void embed_backward(const TokenBatch& batch, const Matrix<T>& dx, Matrix<T>& gradient) {
  for (std::int64_t token = 0; token < batch.tokens(); ++token) {
    gradient.row(batch.input_ids[static_cast<std::size_t>(token)]) += dx.row(token);
  }
}

std::vector<Eigen::Index> predicting_positions(const TokenBatch& batch) {
  std::vector<Eigen::Index> positions;
  for (std::int64_t row = 0; row < batch.rows(); ++row) {
    for (std::int64_t next = batch.offsets[row] + 1; next < batch.offsets[row + 1]; ++next) {
      if (batch.labels[static_cast<std::size_t>(next)] != kIgnoredLabel) positions.push_back(next - 1);
    }
  }
  return positions;
}

template <typename T>
Matrix<T> output_logits(const LayerContext<T>& context, const EndWeights<T>& weights, const Matrix<T>& x) {
  const DType compute = context.compute_dtype;
  const Matrix<T> head = to_matrix<T>(weights.output_head, compute);
  return times_transposed(rmsnorm_forward(x, weights.final_norm, context.config->rms_norm_eps, compute), head, compute);
}

template <typename T>
double output_loss(const LayerContext<T>& context, const EndWeights<T>& weights, const Matrix<T>& x,
                   double gradient_scale, Matrix<T>* dx, Matrix<T>* head_gradient) {
  const DType compute = context.compute_dtype;
  const double epsilon = context.config->rms_norm_eps;
  const Matrix<T> head = to_matrix<T>(weights.output_head, compute);
  const Predictions predictions = find_predictions(*context.batch, head.rows());
  const auto count = static_cast<std::int64_t>(predictions.positions.size());
  if (dx != nullptr) *dx = Matrix<T>::Zero(x.rows(), x.cols());
  std::vector<double> sums(static_cast<std::size_t>((count + kTokensPerPiece - 1) / kTokensPerPiece));
  const auto work = [&](std::int64_t begin, std::int64_t end) {
    const auto positions = std::span(predictions.positions).subspan(begin, end - begin);
    const auto labels = std::span(predictions.labels).subspan(begin, end - begin);
    const Matrix<T> rows = x(positions, Eigen::all);
    const Matrix<T> normed = rmsnorm_forward(rows, weights.final_norm, epsilon, compute);
    Matrix<T> logits = times_transposed(normed, head, compute);
    sums[static_cast<std::size_t>(begin / kTokensPerPiece)] =
        cross_entropy(logits, labels, gradient_scale, compute, dx != nullptr ? &logits : nullptr);
    if (dx == nullptr) return;
    (*dx)(positions, Eigen::all) =
        rmsnorm_backward(rows, weights.final_norm, epsilon, compute, times(logits, head, compute));
    if (head_gradient != nullptr) add_transposed_times(logits, normed, *head_gradient);
  };
  if (head_gradient == nullptr) {
    parallel_for(count, kTokensPerPiece, work);
  } else {  // the pieces add to one gradient, so they take turns
    for (std::int64_t begin = 0; begin < count; begin += kTokensPerPiece) {
      work(begin, std::min(count, begin + kTokensPerPiece));
    }
  }
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

template Matrix<float> embed(const EndWeights<float>&, const TokenBatch&);
template Matrix<double> embed(const EndWeights<double>&, const TokenBatch&);
template void embed_backward(const TokenBatch&, const Matrix<float>&, Matrix<float>&);
template void embed_backward(const TokenBatch&, const Matrix<double>&, Matrix<double>&);
template Matrix<float> output_logits(const LayerContext<float>&, const EndWeights<float>&, const Matrix<float>&);
template Matrix<double> output_logits(const LayerContext<double>&, const EndWeights<double>&, const Matrix<double>&);
template double output_loss(const LayerContext<float>&, const EndWeights<float>&, const Matrix<float>&, double,
                            Matrix<float>*, Matrix<float>*);
template double output_loss(const LayerContext<double>&, const EndWeights<double>&, const Matrix<double>&, double,
                            Matrix<double>*, Matrix<double>*);

}  // namespace qshard::reference
