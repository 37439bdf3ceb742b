#include "reference/lora.h"

#include "reference/matrix_product.h"
#include "reference/parallel.h"

namespace qshard::reference {
namespace {

template <typename T>
void scale_rounded(double scaling, DType compute, Matrix<T>& values) {
  parallel_for(values.rows(), kTokensPerPiece, [&](std::int64_t begin, std::int64_t end) {
    auto piece = values.middleRows(begin, end - begin);
    piece *= static_cast<T>(scaling);
    round_to(compute, piece);
  });
}

}  // namespace

template <typename T>
void lora_forward(const Lora<T>& lora, double scaling, DType compute, const Matrix<T>& x, Matrix<T>& y) {
  Matrix<T> product = times_transposed(times_transposed(x, lora.a, compute), lora.b, compute);
  scale_rounded(scaling, compute, product);
  add_rounded(product, compute, y);
}

template <typename T>
Matrix<T> lora_backward(const Lora<T>& lora, double scaling, DType compute, const Matrix<T>& x, const Matrix<T>& dy,
                        Lora<T>& gradient) {
  Matrix<T> scaled = dy;
  scale_rounded(scaling, compute, scaled);
  add_transposed_times(scaled, times_transposed(x, lora.a, compute), gradient.b);
  const Matrix<T> inner = times(scaled, lora.b, compute);
  add_transposed_times(inner, x, gradient.a);
  return times(inner, lora.a, compute);
}

template void lora_forward(const Lora<float>&, double, DType, const Matrix<float>&, Matrix<float>&);
template void lora_forward(const Lora<double>&, double, DType, const Matrix<double>&, Matrix<double>&);
template Matrix<float> lora_backward(const Lora<float>&, double, DType, const Matrix<float>&, const Matrix<float>&,
                                     Lora<float>&);
template Matrix<double> lora_backward(const Lora<double>&, double, DType, const Matrix<double>&, const Matrix<double>&,
                                      Lora<double>&);

}  // namespace qshard::reference
