#include "optimized/linear4bit/linear4bit_plan.h"

#include <algorithm>
#include <vector>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"
#include "optimized/linear4bit/linear4bit_kernels.h"

namespace qshard::optimized {

namespace {

constexpr std::size_t kWorkspaceAlignment = 256;

bool is_aligned(const void* pointer, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0 && stride % 8 == 0;
}

const Linear4bitKernel& find_kernel(std::string_view name, const Linear4bitProblem& problem) {
  const auto kernels = linear4bit_kernels();
  const auto found = std::ranges::find(kernels, name, &Linear4bitKernel::name);
  if (found == kernels.end()) fail_input("there is no kernel {} for 4-bit linear layers", name);
  if (!found->supports(problem)) {
    fail_input(
        "the kernel {} does not support the {} of a 4-bit linear layer [{}, {}] with blocks of {} in {} over {} "
        "rows on this device",
        name, problem.forward() ? "forward product" : "input gradient", problem.shape.out_features,
        problem.shape.in_features, problem.shape.blocksize, torch_name(problem.shape.dtype), problem.rows);
  }
  return *found;
}

Linear4bitProblem make_problem(const MatmulPlans& plans, const Linear4bitShape& shape, std::int64_t rows,
                               Linear4bitDirection direction, const OtherWork& other = {}, bool with_addends = false) {
  Linear4bitProblem problem{shape, rows, direction, {}, plans.workspace_bytes(), with_addends};
  check_problem(problem);
  problem.device = current_linear4bit_device();
  problem.device.other = other;
  return problem;
}

/// Elements from row to row of the input's copy: a multiple of 16 bytes.
std::int64_t copy_stride(const Linear4bitProblem& problem) {
  return (problem.in_width() + 7) / 8 * 8;
}

/// The input's copy, for a kernel that needs an aligned one.
std::size_t copy_bytes(const Linear4bitProblem& problem, const Linear4bitKernel& kernel) {
  if (kernel.alignment != Linear4bitAlignment::in) return 0;
  return static_cast<std::size_t>(problem.rows * copy_stride(problem)) * size_of(problem.shape.dtype);
}

std::size_t bytes_of(const Linear4bitProblem& problem, const Linear4bitKernel& kernel) {
  return aligned_bytes(kernel.workspace_bytes(problem)) + copy_bytes(problem, kernel);
}

void copy_input(const Linear4bitProblem& problem, const Linear4bitKernel& kernel, Linear4bitCall& call) {
  void* const copy = static_cast<std::byte*>(call.workspace) + aligned_bytes(kernel.workspace_bytes(problem));
  const std::size_t element = size_of(problem.shape.dtype);
  const std::size_t width = problem.in_width() * element;
  const std::size_t pitch = copy_stride(problem) * element;
  QSHARD_CUDA_CHECK(cudaMemcpy2DAsync(copy, pitch, call.in, call.in_stride * element, width, problem.rows,
                                      cudaMemcpyDeviceToDevice, call.stream));
  call.in = copy;
  call.in_stride = copy_stride(problem);
}

void check_weight_of(const Linear4bitShape& shape, const DeviceWeight4bit& weight) {
  check_weight(weight);
  if (weight.elements != shape.out_features * shape.in_features) {
    fail_input("a 4-bit linear layer of [{}, {}] has a weight of {} elements", shape.out_features, shape.in_features,
               weight.elements);
  }
  if (weight.blocksize != shape.blocksize || weight.quant_type != shape.quant_type || weight.nested() != shape.nested) {
    fail_input("a 4-bit linear layer's plan is for {} in blocks of {}, {}, but its weight is {} in blocks of {}, {}",
               to_string(shape.quant_type), shape.blocksize, shape.nested ? "nested" : "not nested",
               to_string(weight.quant_type), weight.blocksize, weight.nested() ? "nested" : "not nested");
  }
}

void check_adapter(const Linear4bitProblem& problem, const Linear4bitAdapter& adapter) {
  const std::size_t element = size_of(problem.shape.dtype);
  check_at_least(adapter.rank, 1, "the rank of a 4-bit linear layer's adapter");
  check_pointer(adapter.factor, element, "the factor of a 4-bit linear layer's adapter");
  check_pointer(adapter.matrix, element, "the matrix of a 4-bit linear layer's adapter");
  check_at_least(adapter.factor_stride, adapter.rank, "the row stride of the factor of a 4-bit linear layer's adapter");
  if (adapter.mask == nullptr) return;
  check_pointer(adapter.mask, 16, "the dropout mask of a 4-bit linear layer's adapter");
  if (problem.forward()) fail_input("the adapter of a 4-bit linear layer has a dropout mask in a forward product");
}

}  // namespace

Linear4bitPlan::Linear4bitPlan(MatmulPlans& plans, const Linear4bitShape& shape, std::int64_t rows,
                               Linear4bitDirection direction, const OtherWork& other, bool with_addends)
    : plans_(&plans),
      problem_(make_problem(plans, shape, rows, direction, other, with_addends)),
      kernel_(&choose_linear4bit_kernel(problem_, true)),
      unaligned_(&choose_linear4bit_kernel(problem_, false)) {}

Linear4bitPlan::Linear4bitPlan(MatmulPlans& plans, const Linear4bitShape& shape, std::int64_t rows,
                               Linear4bitDirection direction, std::string_view kernel)
    : plans_(&plans),
      problem_(make_problem(plans, shape, rows, direction)),
      kernel_(&find_kernel(kernel, problem_)),
      unaligned_(kernel_->alignment == Linear4bitAlignment::in_and_out ? &choose_linear4bit_kernel(problem_, false)
                                                                       : kernel_) {}

std::size_t Linear4bitPlan::workspace_bytes() const {
  return std::max(bytes_of(problem_, *kernel_), bytes_of(problem_, *unaligned_));
}

const char* Linear4bitPlan::kernel_name() const {
  return kernel_->name;
}

bool Linear4bitPlan::rounds_codebook() const {
  return kernel_->operand == Linear4bitOperand::rounded_codebook;
}

const Linear4bitKernel& Linear4bitPlan::kernel_for(const void* in, std::int64_t in_stride, const void* out,
                                                   std::int64_t out_stride) const {
  return is_aligned(in, in_stride) && is_aligned(out, out_stride) ? *kernel_ : *unaligned_;
}

bool Linear4bitPlan::adds(const Linear4bitAddends& addends, const void* in, std::int64_t in_stride, const void* out,
                          std::int64_t out_stride) const {
  if (addends.empty()) return true;
  const Linear4bitKernel& kernel = kernel_for(in, in_stride, out, out_stride);
  return kernel.adds != nullptr && kernel.adds(problem_, addends);
}

void Linear4bitPlan::check_call(const DeviceWeight4bit& weight, const void* in, std::int64_t in_stride, const void* out,
                                std::int64_t out_stride) const {
  const Linear4bitShape& shape = problem_.shape;
  check_weight_of(shape, weight);
  check_pointer(in, size_of(shape.dtype), "the input of a 4-bit linear layer");
  check_pointer(out, size_of(shape.dtype), "the output of a 4-bit linear layer");
  check_at_least(in_stride, problem_.in_width(), "the row stride of a 4-bit linear layer's input");
  check_at_least(out_stride, problem_.out_width(), "the row stride of a 4-bit linear layer's output");
}

void Linear4bitPlan::run(const DeviceWeight4bit& weight, const void* in, std::int64_t in_stride, void* out,
                         std::int64_t out_stride, void* workspace, cudaStream_t stream,
                         const Linear4bitAddends& addends) const {
  check_call(weight, in, in_stride, out, out_stride);
  if (workspace_bytes() > 0) check_pointer(workspace, kWorkspaceAlignment, "the workspace of a 4-bit linear layer");
  Linear4bitCall call{*plans_, weight, in, in_stride, out, out_stride, workspace, stream, addends};
  const Linear4bitKernel& kernel = kernel_for(in, in_stride, out, out_stride);
  if (addends.adapter.rank != 0) check_adapter(problem_, addends.adapter);
  if (!adds(addends, in, in_stride, out, out_stride)) {
    fail_input("the kernel {} adds no such adapter to a 4-bit linear layer, and does not add to its output",
               kernel.name);
  }
  if (kernel.alignment == Linear4bitAlignment::in && !is_aligned(in, in_stride)) copy_input(problem_, kernel, call);
  kernel.run(problem_, call);
}

bool Linear4bitPlan::run_together(std::span<const Linear4bitProduct> products, const void* in, std::int64_t in_stride,
                                  void* workspace, std::size_t available, cudaStream_t stream) {
  if (products.size() < 2) return false;
  Linear4bitProblem whole = products[0].plan->problem_;
  std::vector<const Linear4bitProblem*> problems;
  std::vector<Linear4bitCall> calls;
  for (const Linear4bitProduct& product : products) {
    const Linear4bitPlan& plan = *product.plan;
    const Linear4bitProblem& problem = plan.problem_;
    plan.check_call(*product.weight, in, in_stride, product.out, product.out_stride);
    if (!whole.shares_input_with(problem)) return false;
    if (!problems.empty()) whole.shape.out_features += problem.shape.out_features;
    problems.push_back(&problem);
    calls.push_back(
        {*plan.plans_, *product.weight, in, in_stride, product.out, product.out_stride, workspace, stream, {}});
  }
  const Linear4bitKernel& kernel = choose_linear4bit_kernel(whole, true);
  if (kernel.run_together == nullptr || !is_aligned(in, in_stride)) return false;
  const auto supported = [&](const Linear4bitProblem* problem) { return kernel.supports(*problem); };
  if (!std::ranges::all_of(problems, supported)) return false;
  if (available > 0) check_pointer(workspace, kWorkspaceAlignment, "the workspace of 4-bit linear layers");
  return kernel.run_together(problems, calls, available);
}

}  // namespace qshard::optimized
