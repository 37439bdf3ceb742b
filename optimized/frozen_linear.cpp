#include "optimized/frozen_linear.h"

#include <algorithm>
#include <vector>

#include "core/base/error.h"

namespace qshard::optimized {

namespace {

// Room for cuBLASLt and the dequantized weight: what the kernels for many rows need, and more than the others do. It
// asks no device, so that a dry run and the real one take the same.
std::size_t product_workspace_bytes(const FrozenWeight& weight) {
  const std::size_t dequantized = weight.in_4bit ? weight.out * weight.in * size_of(weight.dtype) : 0;
  return kMatmulWorkspaceBytes + dequantized;
}

Linear4bitShape shape_of(const FrozenWeight& weight) {
  return {weight.out,
          weight.in,
          weight.dtype,
          weight.quantized.quant_type,
          weight.quantized.blocksize,
          weight.quantized.nested()};
}

/// Returns whether the plan's kernel takes the addends; does nothing where it does not.
bool multiply_4bit(const StepResources& resources, const FrozenWeight& weight, std::int64_t rows,
                   Linear4bitDirection direction, ConstRows from, MutableRows to, const Linear4bitAddends& addends,
                   void* workspace) {
  const std::size_t bytes = product_workspace_bytes(weight);
  const Linear4bitPlan& plan =
      resources.linear4bit->find(*resources.matmul, shape_of(weight), rows, direction, !addends.empty());
  if (plan.workspace_bytes() > bytes) {
    fail(ExitCode::rank_failed, "the kernel {} needs {} bytes of workspace, more than the {} that were planned",
         plan.kernel_name(), plan.workspace_bytes(), bytes);
  }
  if (!plan.adds(addends, from.data, from.stride, to.data, to.stride)) return false;
  plan.run(weight.quantized, from.data, from.stride, to.data, to.stride, workspace, resources.stream, addends);
  return true;
}

Arena::Piece take_workspace(const StepResources& resources, const FrozenWeight& weight) {
  return resources.arena->take(static_cast<std::int64_t>(product_workspace_bytes(weight)), "workspace");
}

bool multiply_with(const StepResources& resources, const FrozenWeight& weight, std::int64_t rows,
                   Linear4bitDirection direction, ConstRows from, MutableRows to, const Linear4bitAddends& addends) {
  const Arena::Piece workspace = take_workspace(resources, weight);
  if (resources.dry_run() || !weight.in_4bit) return false;
  return multiply_4bit(resources, weight, rows, direction, from, to, addends, workspace.as());
}

void multiply(const StepResources& resources, const FrozenWeight& weight, std::int64_t rows,
              Linear4bitDirection direction, ConstRows from, MutableRows to) {
  const Arena::Piece workspace = take_workspace(resources, weight);
  if (resources.dry_run()) return;
  if (weight.in_4bit) {
    multiply_4bit(resources, weight, rows, direction, from, to, {}, workspace.as());
    return;
  }
  const bool forward = direction == Linear4bitDirection::forward;
  MatmulShape shape;
  shape.rows = rows;
  shape.columns = forward ? weight.out : weight.in;
  shape.inner = forward ? weight.in : weight.out;
  shape.a_stride = from.stride;
  shape.b_stride = weight.in;
  shape.c_stride = to.stride;
  shape.b_transposed = forward;
  shape.dtype = weight.dtype;
  matmul(*resources.matmul, shape, from.data, weight.dense, to.data, workspace.as(), kMatmulWorkspaceBytes,
         resources.stream);
}

/// Returns whether it was done.
bool multiply_together(const StepResources& resources, std::span<const FrozenWeight* const> weights, std::int64_t rows,
                       ConstRows x, std::span<const MutableRows> ys) {
  const Arena::Piece workspace = take_workspace(resources, *weights[0]);
  if (resources.dry_run() || !std::ranges::all_of(weights, &FrozenWeight::in_4bit)) return false;
  std::vector<Linear4bitPlan> plans;  // copies: a further plan may take the place of an earlier one
  for (const FrozenWeight* weight : weights) {
    plans.push_back(
        resources.linear4bit->find(*resources.matmul, shape_of(*weight), rows, Linear4bitDirection::forward));
  }
  std::vector<Linear4bitProduct> products;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    products.push_back({&plans[i], &weights[i]->quantized, ys[i].data, ys[i].stride});
  }
  return Linear4bitPlan::run_together(products, x.data, x.stride, workspace.as(), product_workspace_bytes(*weights[0]),
                                      resources.stream);
}

}  // namespace

const Linear4bitPlan& Linear4bitPlans::find(MatmulPlans& matmul, const Linear4bitShape& shape, std::int64_t rows,
                                            Linear4bitDirection direction, bool with_addends) {
  for (const Linear4bitPlan& plan : plans_) {
    const Linear4bitProblem& problem = plan.problem();
    if (problem.rows == rows && problem.direction == direction && problem.with_addends == with_addends &&
        problem.shape == shape) {
      return plan;
    }
  }
  if (plans_.size() >= kMostPlans) plans_.pop_back();
  return plans_.emplace_front(matmul, shape, rows, direction, other_, with_addends);
}

void frozen_linear(const StepResources& resources, const FrozenWeight& weight, std::int64_t rows, ConstRows x,
                   MutableRows y) {
  multiply(resources, weight, rows, Linear4bitDirection::forward, x, y);
}

void frozen_linears(const StepResources& resources, std::span<const FrozenWeight* const> weights, std::int64_t rows,
                    ConstRows x, std::span<const MutableRows> ys) {
  if (multiply_together(resources, weights, rows, x, ys)) return;
  for (std::size_t i = 0; i < weights.size(); ++i) frozen_linear(resources, *weights[i], rows, x, ys[i]);
}

void frozen_linear_input_gradient(const StepResources& resources, const FrozenWeight& weight, std::int64_t rows,
                                  ConstRows dy, MutableRows dx) {
  multiply(resources, weight, rows, Linear4bitDirection::input_gradient, dy, dx);
}

bool frozen_linear_with(const StepResources& resources, const FrozenWeight& weight, std::int64_t rows, ConstRows x,
                        MutableRows y, const Linear4bitAddends& addends) {
  return multiply_with(resources, weight, rows, Linear4bitDirection::forward, x, y, addends);
}

bool frozen_linear_input_gradient_with(const StepResources& resources, const FrozenWeight& weight, std::int64_t rows,
                                       ConstRows dy, MutableRows dx, const Linear4bitAddends& addends) {
  return multiply_with(resources, weight, rows, Linear4bitDirection::input_gradient, dy, dx, addends);
}

}  // namespace qshard::optimized
