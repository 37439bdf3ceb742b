#include "optimized/matmul.h"

#include <algorithm>
#include <bit>
#include <vector>

#include <cublasLt.h>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

void check_cublas(cublasStatus_t status, const char* statement, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail(status == CUBLAS_STATUS_ALLOC_FAILED ? ExitCode::out_of_resources : ExitCode::rank_failed,
       "cuBLASLt: {} ({}): {} at {}:{}", cublasLtGetStatusString(status), cublasLtGetStatusName(status), statement,
       __FILE__, line);
}

#define QSHARD_CUBLAS_CHECK(statement) check_cublas((statement), #statement, __LINE__)

template <typename T, cublasStatus_t (*kDestroy)(T)>
struct Destroy {
  void operator()(T handle) const { kDestroy(handle); }
};

template <typename T, cublasStatus_t (*kDestroy)(T)>
using Handle = std::unique_ptr<std::remove_pointer_t<T>, Destroy<T, kDestroy>>;

using Operation = Handle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Handle<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Handle<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

cudaDataType_t cuda_type(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f16:
      return CUDA_R_16F;
    default:
      return CUDA_R_32F;
  }
}

Layout make_layout(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  QSHARD_CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&layout, cuda_type(dtype), rows, columns, stride));
  return Layout(layout);
}

/// The largest power of two up to 256 that divides the address.
std::uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  return address == 0 ? 256U : std::uint32_t{1} << std::min(8, std::countr_zero(address));
}

struct Alignments {
  std::uint32_t a, b, addend, c;
  bool operator==(const Alignments&) const = default;
};

/// cuBLASLt's matrices are column-major: it computes c^T = op(b)^T op(a)^T + addend^T, so that its A is our b, its B
/// our a, its C our addend and its D our c.
struct Plan {
  MatmulShape shape;
  Alignments alignments;
  Operation operation;
  Layout a, b, addend, c;
  cublasLtMatmulAlgo_t algorithm{};
};

template <typename T>
void set(const Operation& operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  QSHARD_CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(operation.get(), attribute, &value, sizeof value));
}

template <typename T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  QSHARD_CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value));
}

std::int64_t addend_stride(const MatmulShape& shape) {
  return shape.addend_stride == 0 ? shape.c_stride : shape.addend_stride;
}

Plan make_plan(cublasLtHandle_t library, std::size_t workspace_bytes, const MatmulShape& shape,
               const Alignments& alignments) {
  cublasLtMatmulDesc_t operation = nullptr;
  QSHARD_CUBLAS_CHECK(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  Plan plan{shape, alignments, Operation(operation), nullptr, nullptr, nullptr, nullptr, {}};
  set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, shape.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, shape.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  plan.a = shape.a_transposed ? make_layout(shape.dtype, shape.rows, shape.inner, shape.a_stride)
                              : make_layout(shape.dtype, shape.inner, shape.rows, shape.a_stride);
  plan.b = shape.b_transposed ? make_layout(shape.dtype, shape.inner, shape.columns, shape.b_stride)
                              : make_layout(shape.dtype, shape.columns, shape.inner, shape.b_stride);
  plan.addend = make_layout(shape.out_dtype, shape.columns, shape.rows, addend_stride(shape));
  plan.c = make_layout(shape.out_dtype, shape.columns, shape.rows, shape.c_stride);

  cublasLtMatmulPreference_t preference_handle = nullptr;
  QSHARD_CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference_handle));
  const Preference preference(preference_handle);
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  // Partial sums, where an algorithm splits the inner dimension, stay in float.
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignments.b);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignments.a);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignments.addend);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignments.c);

  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  QSHARD_CUBLAS_CHECK(cublasLtMatmulAlgoGetHeuristic(library, plan.operation.get(), plan.b.get(), plan.a.get(),
                                                     plan.addend.get(), plan.c.get(), preference.get(), 1, &found,
                                                     &count));
  if (count == 0) {
    fail(ExitCode::rank_failed,
         "cuBLASLt has no algorithm for a [{}, {}] by [{}, {}] product of {} to {} with a workspace "
         "of {} bytes",
         shape.rows, shape.inner, shape.inner, shape.columns, torch_name(shape.dtype), torch_name(shape.out_dtype),
         workspace_bytes);
  }
  plan.algorithm = found.algo;
  return plan;
}

void check_shape(const MatmulShape& shape) {
  check_floating(shape.dtype, "the dtype of a matrix product");
  check_at_least(shape.rows, 1, "the number of rows of a matrix product");
  check_at_least(shape.columns, 1, "the number of columns of a matrix product");
  check_at_least(shape.inner, 1, "the inner size of a matrix product");
  if (shape.out_dtype != shape.dtype && shape.out_dtype != DType::f32) {
    fail_input("a matrix product of {} cannot give {}: use {} or float32", torch_name(shape.dtype),
               torch_name(shape.out_dtype), torch_name(shape.dtype));
  }
  check_at_least(shape.a_stride, shape.a_transposed ? shape.rows : shape.inner,
                 "the stride of a matrix product's first operand");
  check_at_least(shape.b_stride, shape.b_transposed ? shape.inner : shape.columns,
                 "the stride of a matrix product's second operand");
  check_at_least(shape.c_stride, shape.columns, "the stride of a matrix product's result");
  check_at_least(addend_stride(shape), shape.columns, "the stride of a matrix product's addend");
}

}  // namespace

struct MatmulPlans::State {
  Handle<cublasLtHandle_t, cublasLtDestroy> library;
  std::vector<Plan> plans;

  const Plan& find(std::size_t workspace_bytes, const MatmulShape& shape, const Alignments& alignments) {
    for (const Plan& plan : plans) {
      if (plan.shape == shape && plan.alignments == alignments) return plan;
    }
    return plans.emplace_back(make_plan(library.get(), workspace_bytes, shape, alignments));
  }
};

MatmulPlans::MatmulPlans(std::size_t workspace_bytes)
    : workspace_bytes_(workspace_bytes), state_(std::make_unique<State>()) {
  cublasLtHandle_t library = nullptr;
  QSHARD_CUBLAS_CHECK(cublasLtCreate(&library));
  state_->library.reset(library);
  counts_ = DeviceBuffer(sizeof(int) * kCountsOfMultiprocessor * device_attribute(cudaDevAttrMultiProcessorCount));
  counts_.fill(0);
}

MatmulPlans::~MatmulPlans() = default;

void matmul(MatmulPlans& plans, const MatmulShape& shape, const MatmulScaling& scaling, const void* a, const void* b,
            void* c, void* workspace, std::size_t workspace_bytes, cudaStream_t stream) {
  check_shape(shape);
  check_pointer(a, size_of(shape.dtype), "the first operand of a matrix product");
  check_pointer(b, size_of(shape.dtype), "the second operand of a matrix product");
  check_pointer(c, size_of(shape.out_dtype), "the result of a matrix product");
  const bool adds = scaling.beta != 0.0F;
  if (adds) check_pointer(scaling.addend, size_of(shape.out_dtype), "the addend of a matrix product");
  if (adds && scaling.addend == c && addend_stride(shape) != shape.c_stride) {
    fail_input("a matrix product adds to its result in place, but with strides {} and {}", addend_stride(shape),
               shape.c_stride);
  }
  if (plans.workspace_bytes() > 0) check_pointer(workspace, 256, "the workspace of a matrix product");
  check_at_least(static_cast<std::int64_t>(workspace_bytes), static_cast<std::int64_t>(plans.workspace_bytes()),
                 "the workspace of a matrix product, in bytes,");
  // Without a second matrix to add, cuBLASLt is given c for it, as a product in place.
  const void* const addend = adds ? scaling.addend : c;
  MatmulShape key = shape;
  key.addend_stride = adds ? addend_stride(shape) : shape.c_stride;
  const Plan& plan = plans.state_->find(plans.workspace_bytes(), key,
                                        {alignment_of(a), alignment_of(b), alignment_of(addend), alignment_of(c)});
  QSHARD_CUBLAS_CHECK(cublasLtMatmul(plans.state_->library.get(), plan.operation.get(), &scaling.alpha, b, plan.b.get(),
                                     a, plan.a.get(), &scaling.beta, addend, plan.addend.get(), c, plan.c.get(),
                                     &plan.algorithm, workspace, plans.workspace_bytes(), stream));
}

void matmul(MatmulPlans& plans, const MatmulShape& shape, const void* a, const void* b, void* c, void* workspace,
            std::size_t workspace_bytes, cudaStream_t stream) {
  matmul(plans, shape, {}, a, b, c, workspace, workspace_bytes, stream);
}

}  // namespace qshard::optimized
