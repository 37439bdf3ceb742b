#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <cuda_runtime_api.h>

#include "core/tensor/dtype.h"
#include "optimized/device/device_buffer.h"

namespace qshard::optimized {

/// c = alpha op(a) op(b) + beta addend, all row-major, every sum in float and rounded once to out_dtype. op(a) is
/// [rows, inner], op(b) [inner, columns], c and addend [rows, columns]. A linear layer of weight w [out, in]: its
/// forward y = x w^T has b_transposed; the gradient of its input dx = dy w has neither; the gradient of its weight dw =
/// dy^T x has a_transposed alone.
struct MatmulShape {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t inner = 0;
  std::int64_t a_stride = 0;  // elements from one row to the next, of the matrix as it is stored
  std::int64_t b_stride = 0;
  std::int64_t c_stride = 0;
  bool b_transposed = true;        // b is stored as [columns, inner], else as [inner, columns]
  DType dtype = DType::bf16;       // of a and b: f32 (no TF32), f16 or bf16
  bool a_transposed = false;       // a is stored as [inner, rows], else as [rows, inner]
  DType out_dtype = dtype;         // of c and addend: that of a and b, or f32
  std::int64_t addend_stride = 0;  // 0: c_stride

  bool operator==(const MatmulShape&) const = default;
};

/// What a product is multiplied by and what is added to it.
struct MatmulScaling {
  float alpha = 1.0F;
  float beta = 0.0F;             // 0: the addend is not read
  const void* addend = nullptr;  // null with beta 0; may be c itself, with the stride of c
};

/// cuBLASLt's workspace for matmul() unless MatmulPlans is told otherwise, in bytes.
inline constexpr std::size_t kMatmulWorkspaceBytes = std::size_t{32} << 20;

/// cuBLASLt and the plans (descriptors and chosen algorithm) of the shapes seen so far, so that a second call with the
/// same shape asks no heuristic; and counts by which thread blocks of one product wait for each other. Belongs to the
/// device that is current when it is made; one thread at a time, and on the device one product at a time.
class MatmulPlans {
 public:
  /// workspace_bytes: what every matmul() with these plans may use. Less means other algorithms, so other bits, and
  /// perhaps less speed; 4 MiB is enough for products to run at all.
  /// Throws Error(out_of_resources) where there is no memory for the counts.
  explicit MatmulPlans(std::size_t workspace_bytes = kMatmulWorkspaceBytes);
  ~MatmulPlans();
  MatmulPlans(const MatmulPlans&) = delete;
  MatmulPlans& operator=(const MatmulPlans&) = delete;

  [[nodiscard]] std::size_t workspace_bytes() const { return workspace_bytes_; }

  /// Zeros on the device, so many for each multiprocessor, one for each warp that multiplies there; a product leaves
  /// zeros.
  [[nodiscard]] int* counts() const { return counts_.as<int>(); }
  static constexpr int kCountsOfMultiprocessor = 8;

 private:
  friend void matmul(MatmulPlans&, const MatmulShape&, const MatmulScaling&, const void*, const void*, void*, void*,
                     std::size_t, cudaStream_t);
  struct State;
  std::size_t workspace_bytes_;
  std::unique_ptr<State> state_;
  DeviceBuffer counts_;
};

/// One matrix product on `stream`. workspace: plans.workspace_bytes() at least, aligned to 256 bytes; pointers aligned
/// to their element; c must not overlap a or b. Run-to-run deterministic for the same plans' workspace size and the
/// same pointers' alignment: partial sums, where an algorithm makes some, are in float and added in a fixed order.
/// alpha and beta are read before this returns, so that a graph captures their values. Throws Error(bad_input) for bad
/// sizes, strides, dtypes or pointers and Error(rank_failed) when cuBLASLt refuses.
void matmul(MatmulPlans& plans, const MatmulShape& shape, const MatmulScaling& scaling, const void* a, const void* b,
            void* c, void* workspace, std::size_t workspace_bytes, cudaStream_t stream);

/// The same for c = op(a) op(b).
void matmul(MatmulPlans& plans, const MatmulShape& shape, const void* a, const void* b, void* c, void* workspace,
            std::size_t workspace_bytes, cudaStream_t stream);

}  // namespace qshard::optimized
