#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <cuda_runtime_api.h>

namespace qshard::bench {

/// A dense matrix product by cuBLASLt with its plan made once: what a framework's linear layer runs. The algorithm is
/// the library's own first choice, with 32 MiB of workspace; float sums; f32 without TF32.
class DenseProduct {
 public:
  /// dtype: QSHARD_F32, QSHARD_F16 or QSHARD_BF16, of all three. Throws Error(check_failed) where cuBLASLt has none.
  DenseProduct(std::int64_t rows, std::int64_t n, std::int64_t k, std::uint32_t dtype, bool backward);
  ~DenseProduct();
  DenseProduct(const DenseProduct&) = delete;
  DenseProduct& operator=(const DenseProduct&) = delete;

  /// forward: out [rows, n] = input [rows, k] weight^T; backward: out [rows, k] = input [rows, n] weight; weight [n,
  /// k].
  void run(const void* weight, const void* input, void* out, cudaStream_t stream) const;

 private:
  struct Plan;
  std::unique_ptr<Plan> plan_;
};

}  // namespace qshard::bench
