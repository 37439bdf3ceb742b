#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// c = a op(b), row-major, accumulated in float: a [rows, inner], c [rows, columns], and b [columns, inner] where
/// b_transposed (c = a b^T, a linear layer's forward), else [inner, columns] (its gradient with respect to the input).
struct MatmulShape {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t inner = 0;
  std::int64_t a_stride = 0;  // elements from one row to the next
  std::int64_t b_stride = 0;
  std::int64_t c_stride = 0;
  bool b_transposed = true;
  DType dtype = DType::bf16;  // of a, b and c: f32 (no TF32), f16 or bf16

  bool operator==(const MatmulShape&) const = default;
};

/// cuBLASLt's workspace for matmul(), in bytes.
inline constexpr std::size_t kMatmulWorkspaceBytes = std::size_t{32} << 20;

/// cuBLASLt and the plans (descriptors and chosen algorithm) of the shapes seen so far, so that a second call with the
/// same shape asks no heuristic. Belongs to the device that is current when it is made; one thread at a time.
class MatmulPlans {
 public:
  MatmulPlans();
  ~MatmulPlans();
  MatmulPlans(const MatmulPlans&) = delete;
  MatmulPlans& operator=(const MatmulPlans&) = delete;

 private:
  friend void matmul(MatmulPlans&, const MatmulShape&, const void*, const void*, void*, void*, std::size_t,
                     cudaStream_t);
  struct State;
  std::unique_ptr<State> state_;
};

/// One matrix product on `stream`. workspace: kMatmulWorkspaceBytes, aligned to 256 bytes; pointers aligned to their
/// element. Run-to-run deterministic for the same pointers' alignment. Throws Error(bad_input) for bad sizes, strides
/// or pointers and Error(rank_failed) when cuBLASLt refuses.
void matmul(MatmulPlans& plans, const MatmulShape& shape, const void* a, const void* b, void* c, void* workspace,
            std::size_t workspace_bytes, cudaStream_t stream);

}  // namespace qshard::optimized
