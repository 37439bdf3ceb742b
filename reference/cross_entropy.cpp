#include "reference/cross_entropy.h"

#include <cmath>

#include "core/base/error.h"
#include "core/training/token_batch.h"

namespace qshard::reference {

template <typename T>
double cross_entropy(const Matrix<T>& logits, std::span<const std::int32_t> labels, double gradient_scale,
                     DType compute, Matrix<T>* dlogits) {
  if (dlogits != nullptr) dlogits->resize(logits.rows(), logits.cols());
  double sum = 0;
  Vector<T> exponentials(logits.cols());
  for (Eigen::Index row = 0; row < logits.rows(); ++row) {
    const std::int32_t label = labels[static_cast<std::size_t>(row)];
    if (label == kIgnoredLabel) {
      if (dlogits != nullptr) dlogits->row(row).setZero();
      continue;
    }
    if (label < 0 || label >= logits.cols()) {
      fail_input("label {} of row {} is outside the vocabulary of {}; expected 0 to {}, or {} to leave it out", label,
                 row, logits.cols(), logits.cols() - 1, kIgnoredLabel);
    }
    const T greatest = logits.row(row).maxCoeff();
    exponentials = (logits.row(row).array() - greatest).exp().matrix().transpose();
    const T total = exponentials.sum();
    sum += static_cast<double>(std::log(total) - (logits(row, label) - greatest));
    if (dlogits == nullptr) continue;
    auto gradient = dlogits->row(row);
    gradient = exponentials.transpose() / total;
    gradient(label) -= T(1);
    gradient *= static_cast<T>(gradient_scale);
    round_to(compute, gradient);
  }
  return sum;
}

template double cross_entropy(const Matrix<float>&, std::span<const std::int32_t>, double, DType, Matrix<float>*);
template double cross_entropy(const Matrix<double>&, std::span<const std::int32_t>, double, DType, Matrix<double>*);

}  // namespace qshard::reference
