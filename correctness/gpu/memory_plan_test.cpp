// The planned memory of a GPU beside the driver's count of every recorded run. Needs no GPU.
#include <algorithm>
#include <cstdlib>
#include <string_view>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "bench/model_shape.h"
#include "correctness/recorded_steps.h"
#include "optimized/sharded/model_plan.h"

namespace qshard::optimized {
namespace {

constexpr double kMiB = 1 << 20;

EngineOptions options_of(const StepCase& of) {
  EngineOptions options;
  options.world_size = static_cast<int>(of.ranks);
  options.transport = of.transport;
  options.offload = of.offload;
  options.quantization.quant_storage = DType::bf16;
  options.lora.r = of.r;
  options.lora.dropout = 0.1;
  options.optimizer.moments = of.moments_8bit ? MomentFormat::blockwise_8bit : MomentFormat::lora_dtype;
  options.dtype = options.compute_dtype = DType::bf16;
  if (of.checkpointing == "on") options.gradient_checkpointing = MemorySaving::always;
  if (of.checkpointing == "off") options.gradient_checkpointing = MemorySaving::never;
  const double whole_card = of.gpu == "h200" ? 139 : 79;
  options.memory_budget = static_cast<std::int64_t>((of.budget_gib > 0 ? of.budget_gib : whole_card) * 1024 * kMiB);
  return options;
}

// The newest records, whose arena is today's.
constexpr std::string_view kNewest[] = {"nvidia-h200/sharded_step_one_gpu.json",
                                        "nvidia-h200/sharded_step_two_gpus.json"};

// Of records of earlier programs, whose arenas differ, what lies outside the arena.
TEST(MemoryPlanOf, EveryRecordedRunWithinOnePercentOr40MiB) {
  const std::vector<RecordedStep> steps = recorded_steps();
  EXPECT_GE(steps.size(), 30U);
  for (const RecordedStep& step : steps) {
    const StepCase& of = step.of;
    const BatchBound batch{of.rows * of.length, of.rows, of.length};
    const MemoryPlans plans = plan_run_memory(bench::model_shape(of.model, of.layers), *make_random_source(0.02, 1),
                                              options_of(of), {batch, {}});
    ASSERT_TRUE(plans.within_budget.has_value()) << step.name;
    const std::int64_t change = plans.within_budget->arena_bytes - step.arena_bytes;
    if (std::ranges::find(kNewest, step.file) != std::end(kNewest)) {
      EXPECT_LE(std::abs(change), 1 << 20) << step.name;
    }
    const auto planned = static_cast<double>(plans.within_budget->device_bytes() - change + plans.outside);
    const auto measured = static_cast<double>(step.peak_bytes);
    fmt::print("{:>8.1f} MiB planned, {:>8.1f} MiB measured, {:>+6.1f} MiB, {:+5.2f} %  {} {}\n", planned / kMiB,
               measured / kMiB, (planned - measured) / kMiB, 100 * (planned / measured - 1), of.gpu, step.name);
    EXPECT_NEAR(planned, measured, std::max(0.01 * measured, 40 * kMiB)) << step.file << " " << step.name;
  }
}

}  // namespace
}  // namespace qshard::optimized
