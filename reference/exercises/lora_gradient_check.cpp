// Checks the exercise lora_gradient: fails while its gap is open. EXERCISE is the file with the gap, or the solution.
#include EXERCISE
#include "reference/exercises/checking.h"
#include "reference/lora.h"

int main() {
  using namespace qshard;
  const Eigen::MatrixXf a = Eigen::MatrixXf::Random(2, 5);
  const Eigen::MatrixXf b = Eigen::MatrixXf::Random(3, 2);
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(4, 5);
  const Eigen::MatrixXf dy = Eigen::MatrixXf::Random(4, 3);
  const LoraGradients found = lora_gradient(a, b, 2.0F, x, dy);
  using reference::Matrix;
  const reference::Lora<float> lora{a, b};
  reference::Lora<float> expected{Matrix<float>::Zero(2, 5), Matrix<float>::Zero(3, 2)};
  reference::lora_backward<float>(lora, 2.0, DType::f32, x, dy, expected);
  if (found.a.rows() != 2 || found.a.cols() != 5 || found.b.rows() != 3 || found.b.cols() != 2) {
    fmt::print("not yet: dA must be [2, 5] and dB [3, 2]\n");
    return 1;
  }
  // Sums of few terms in another order: a few units in the last place.
  const double error =
      std::max((found.a - expected.a).cwiseAbs().maxCoeff(), (found.b - expected.b).cwiseAbs().maxCoeff());
  return report("dA and dB", !(error <= 1e-5) ? 1 : 0, 16, error, 0.0);
}
