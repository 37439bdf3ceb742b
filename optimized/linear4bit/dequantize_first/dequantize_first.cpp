#include "optimized/linear4bit/dequantize_first/dequantize_first.h"

#include "optimized/dequantize.h"

namespace qshard::optimized::dequantize_first {

std::size_t workspace_bytes(const Linear4bitProblem& problem) {
  const Linear4bitShape& shape = problem.shape;
  return aligned_bytes(problem.matmul_workspace_bytes) +
         static_cast<std::size_t>(shape.out_features * shape.in_features) * size_of(shape.dtype);
}

void run(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  const DType dtype = problem.shape.dtype;
  void* const weight = static_cast<std::byte*>(call.workspace) + aligned_bytes(problem.matmul_workspace_bytes);
  dequantize(call.weight, dtype, weight, call.stream);
  MatmulShape product{.rows = problem.rows,
                      .columns = problem.out_width(),
                      .inner = problem.in_width(),
                      .a_stride = call.in_stride,
                      .b_stride = problem.shape.in_features,
                      .c_stride = call.out_stride,
                      .b_transposed = problem.forward(),
                      .dtype = dtype};
  matmul(call.plans, product, call.in, weight, call.out, call.workspace, problem.matmul_workspace_bytes, call.stream);
}

}  // namespace qshard::optimized::dequantize_first
