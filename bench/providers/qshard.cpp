#include <memory>
#include <optional>

#include "bench/gpu/problem.h"
#include "bench/providers/provider.h"
#include "core/tensor/weight4bit.h"
#include "optimized/dequantize.h"
#include "optimized/double_quant.h"
#include "optimized/linear4bit/linear4bit_kernels.h"
#include "optimized/linear4bit/linear4bit_plan.h"
#include "optimized/quantize.h"

namespace qshard::bench {
namespace {

optimized::DeviceWeight4bit device_weight(const qshard_problem& problem, const qshard_buffers& buffers) {
  optimized::DeviceWeight4bit weight;
  weight.quant_type = quant_type_of(problem);
  weight.blocksize = static_cast<int>(problem.blocksize);
  weight.elements = problem.n * problem.k;
  weight.codes = buffers.codes;
  weight.absmax = buffers.absmax;
  weight.absmax_codes = buffers.absmax_codes;
  weight.nested_absmax = buffers.nested_absmax;
  weight.nested_map = buffers.nested_map;
  weight.offset = buffers.offset;
  weight.resident = true;  // as generation says of weights that lie on the GPU: no kernel writes them
  return weight;
}

optimized::Linear4bitShape shape_of(const qshard_problem& problem) {
  return {problem.n,          problem.k, dtype_of(problem), quant_type_of(problem), static_cast<int>(problem.blocksize),
          problem.nested != 0};
}

optimized::Linear4bitDirection direction_of(const qshard_problem& problem) {
  return problem.operation == QSHARD_LINEAR4BIT ? optimized::Linear4bitDirection::forward
                                                : optimized::Linear4bitDirection::input_gradient;
}

std::int64_t blocks_of(const qshard_problem& problem) {
  return block_count(problem.n * problem.k, problem.blocksize);
}

/// This project's kernels; portable: of the linear layers those that it takes where a GPU has no warpgroup
/// instructions.
class QshardProvider : public Provider {
 public:
  explicit QshardProvider(bool portable) : portable_(portable) {}

  [[nodiscard]] std::string name() const override { return portable_ ? "qshard_portable" : "qshard"; }

  [[nodiscard]] std::string unsupported(const qshard_problem& problem) const override {
    return portable_ && !is_linear(problem) ? "has one kernel for all GPUs, that of qshard" : "";
  }

  [[nodiscard]] std::size_t workspace_bytes(const qshard_problem& problem) const override {
    if (problem.operation == QSHARD_QUANTIZE && problem.nested != 0) {
      return optimized::nested_workspace_bytes(blocks_of(problem));
    }
    return is_linear(problem) ? make_plan(problem).workspace_bytes() : 0;
  }

  void run(const qshard_problem& problem, const qshard_buffers& buffers, cudaStream_t stream) override {
    const DType dtype = dtype_of(problem);
    if (problem.operation == QSHARD_DEQUANTIZE) {
      optimized::dequantize(device_weight(problem, buffers), dtype, buffers.weight, stream);
    } else if (problem.operation == QSHARD_QUANTIZE) {
      quantize(problem, buffers, stream);
    } else if (problem.operation == QSHARD_LINEAR4BIT) {
      plan_of(problem).run(device_weight(problem, buffers), buffers.x, problem.k, buffers.y, problem.n,
                           buffers.workspace, stream);
    } else {
      plan_of(problem).run(device_weight(problem, buffers), buffers.y, problem.n, buffers.x, problem.k,
                           buffers.workspace, stream);
    }
  }

  /// Some kernels round the codebook instead of the dequantized weight: two roundings apart at most.
  [[nodiscard]] int product_roundings(const qshard_problem& problem) const override {
    return is_linear(problem) && make_plan(problem).rounds_codebook() ? 2 : 0;
  }

 private:
  [[nodiscard]] optimized::Linear4bitPlan make_plan(const qshard_problem& problem) const {
    const optimized::Linear4bitPlan plan(plans_, shape_of(problem), problem.rows, direction_of(problem));
    if (!portable_) return plan;
    optimized::Linear4bitProblem without = plan.problem();
    without.device.has_warpgroups = false;
    const optimized::Linear4bitKernel& kernel = optimized::choose_linear4bit_kernel(without, true);
    return {plans_, shape_of(problem), problem.rows, direction_of(problem), kernel.name};
  }

  /// Made again only where the problem is another one than the last.
  const optimized::Linear4bitPlan& plan_of(const qshard_problem& problem) {
    if (!plan_ || plan_->problem().shape != shape_of(problem) || plan_->problem().rows != problem.rows ||
        plan_->problem().direction != direction_of(problem)) {
      plan_.emplace(make_plan(problem));
    }
    return *plan_;
  }

  static void quantize(const qshard_problem& problem, const qshard_buffers& buffers, cudaStream_t stream) {
    const std::int64_t elements = problem.n * problem.k;
    const auto blocksize = static_cast<int>(problem.blocksize);
    if (problem.nested == 0) {
      optimized::quantize(buffers.weight, dtype_of(problem), elements, quant_type_of(problem), blocksize, buffers.codes,
                          buffers.absmax, stream);
      return;
    }
    optimized::quantize_nested(buffers.weight, dtype_of(problem), elements, quant_type_of(problem), blocksize,
                               buffers.codes, buffers.nested_map, nullptr,
                               {buffers.absmax_codes, buffers.nested_absmax, buffers.offset}, buffers.workspace,
                               optimized::nested_workspace_bytes(blocks_of(problem)), stream);
  }

  bool portable_;
  mutable optimized::MatmulPlans plans_;  // making a plan changes nothing in them
  std::optional<optimized::Linear4bitPlan> plan_;
};

}  // namespace

std::unique_ptr<Provider> make_qshard_provider(bool portable) {
  return std::make_unique<QshardProvider>(portable);
}

}  // namespace qshard::bench
