#include "bench/gpu/problem.h"
#include "bench/providers/dense_product.h"
#include "bench/providers/provider.h"

namespace qshard::bench {
namespace {

/// The dense linear layer in the same dtype, which a 4-bit one is measured against: it reads a weight that is already
/// dequantized.
class CublasProvider : public Provider {
 public:
  [[nodiscard]] std::string name() const override { return "cublas"; }

  [[nodiscard]] std::string unsupported(const qshard_problem& problem) const override {
    return is_linear(problem) ? "" : "matrix products only";
  }

  [[nodiscard]] bool reads_dense_weight() const override { return true; }

  void prepare(const qshard_problem& problem, std::span<const qshard_buffers> /*buffers*/,
               cudaStream_t /*stream*/) override {
    const bool backward = problem.operation == QSHARD_LINEAR4BIT_BACKWARD;
    product_ = std::make_unique<DenseProduct>(problem.rows, problem.n, problem.k, problem.dtype, backward);
  }

  void run(const qshard_problem& problem, const qshard_buffers& buffers, cudaStream_t stream) override {
    const bool forward = problem.operation == QSHARD_LINEAR4BIT;
    product_->run(buffers.weight, forward ? buffers.x : buffers.y, forward ? buffers.y : buffers.x, stream);
  }

 private:
  std::unique_ptr<DenseProduct> product_;
};

}  // namespace

std::unique_ptr<Provider> make_cublas_provider() {
  return std::make_unique<CublasProvider>();
}

}  // namespace qshard::bench
