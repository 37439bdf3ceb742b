#include "bench/providers/dense_product.h"

#include <cublasLt.h>

#include "bench/gpu/device.h"
#include "bench/providers/qshard_provider.h"
#include "core/base/error.h"

namespace qshard::bench {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    fail(ExitCode::check_failed, "cuBLASLt: {} failed: {}", what, cublasLtGetStatusString(status));
  }
}

cudaDataType_t data_type(std::uint32_t dtype) {
  return dtype == QSHARD_F32 ? CUDA_R_32F : dtype == QSHARD_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

/// A column-major matrix of this many rows and columns: a row-major one with the two exchanged.
cublasLtMatrixLayout_t layout(std::uint32_t dtype, std::int64_t rows, std::int64_t columns) {
  cublasLtMatrixLayout_t result = nullptr;
  check(cublasLtMatrixLayoutCreate(&result, data_type(dtype), rows, columns, rows), "cublasLtMatrixLayoutCreate");
  return result;
}

}  // namespace

struct DenseProduct::Plan {
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weight = nullptr;
  cublasLtMatrixLayout_t input = nullptr;
  cublasLtMatrixLayout_t output = nullptr;
  cublasLtMatmulHeuristicResult_t chosen{};
  DeviceBuffer workspace{kWorkspaceBytes};

  Plan() = default;
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() {
    cublasLtMatrixLayoutDestroy(output);
    cublasLtMatrixLayoutDestroy(input);
    cublasLtMatrixLayoutDestroy(weight);
    cublasLtMatmulDescDestroy(operation);
    cublasLtDestroy(handle);
  }
};

DenseProduct::DenseProduct(std::int64_t rows, std::int64_t n, std::int64_t k, std::uint32_t dtype, bool backward)
    : plan_(std::make_unique<Plan>()) {
  Plan& plan = *plan_;
  check(cublasLtCreate(&plan.handle), "cublasLtCreate");
  check(cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  const cublasOperation_t transpose = backward ? CUBLAS_OP_N : CUBLAS_OP_T;
  check(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof(transpose)),
        "cublasLtMatmulDescSetAttribute");
  plan.weight = layout(dtype, k, n);
  plan.input = layout(dtype, backward ? n : k, rows);
  plan.output = layout(dtype, backward ? k : n, rows);

  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes,
                                             sizeof(kWorkspaceBytes)),
        "cublasLtMatmulPreferenceSetAttribute");
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(plan.handle, plan.operation, plan.weight, plan.input, plan.output, plan.output,
                                     preference, 1, &plan.chosen, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  check(status, "cublasLtMatmulAlgoGetHeuristic");
  if (found == 0) fail(ExitCode::check_failed, "cuBLASLt has no algorithm for rows {}, n {}, k {}", rows, n, k);
}

DenseProduct::~DenseProduct() = default;

void DenseProduct::run(const void* weight, const void* input, void* out, cudaStream_t stream) const {
  const float one = 1.0F;
  const float zero = 0.0F;
  const Plan& plan = *plan_;
  check(cublasLtMatmul(plan.handle, plan.operation, &one, weight, plan.weight, input, plan.input, &zero, out,
                       plan.output, out, plan.output, &plan.chosen.algo, plan.workspace.as(), kWorkspaceBytes, stream),
        "cublasLtMatmul");
}

}  // namespace qshard::bench
