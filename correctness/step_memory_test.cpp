// Memory over a step: what is gathered and kept at each moment of a time line made by hand, and of a predicted one.
#include "core/sharding/step_memory.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/model_shape.h"
#include "core/formats/bnb_checkpoint.h"

namespace qshard {
namespace {

MATCHER_P3(IsMoment, at, gathered, inputs, "") {
  return arg.at == at && arg.gathered == gathered && arg.inputs == inputs;
}

StepWork two_layers() {
  StepWork work;
  work.model.hidden_size = 5;
  work.batch.tokens = 1;
  work.stages = {{1000, 1, 0}, {100, 1, 0}, {100, 1, 0}, {30, 1, 0}};
  return work;
}

// The layer of the turn is gathered once, the other one again, the head beside the last layer.
Timeline played() {
  Timeline timeline;
  timeline.segments = {
      {Lane::link, "gather", 0, 0, 1},  {Lane::link, "gather", 1, 1, 2},      {Lane::compute, "forward", 0, 1, 3},
      {Lane::link, "gather", -1, 3, 4}, {Lane::compute, "forward", 1, 3, 5},  {Lane::compute, "head", -1, 5, 6},
      {Lane::link, "gather", 0, 6, 7},  {Lane::compute, "backward", 1, 6, 8}, {Lane::compute, "backward", 0, 8, 9}};
  timeline.end = 9;
  return timeline;
}

TEST(StepMemory, WhatIsGatheredAndKeptAtEachMoment) {
  EXPECT_THAT(memory_over_step(two_layers(), played()),
              testing::ElementsAre(IsMoment(0, 100, 0), IsMoment(1, 200, 10), IsMoment(3, 130, 20),
                                   IsMoment(6, 200, 20), IsMoment(8, 100, 10), IsMoment(9, 0, 0)));
}

TEST(StepMemory, InputsInHostMemoryTakeNothing) {
  StepWork work = two_layers();
  work.choice.inputs_on_host = true;
  for (const MemoryMoment& moment : memory_over_step(work, played())) EXPECT_EQ(moment.inputs, 0);
}

TEST(StepMemory, APredictedStepHoldsTwoLayersAndTheHeadAtMost) {
  StepWork work;
  work.model = bench::model_shape("llama-2-70b", 6);
  work.quantization.quant_storage = DType::bf16;
  work.ranks = 2;
  work.batch = {2048, 1, 2048};
  const auto stages = list_model_stages(work.model, work.quantization, work.lora, DType::bf16,
                                        [](const auto&, const auto&) { return std::nullopt; });
  work.stages = list_stage_work(plan_shards(stages, 2, work.sharding));
  const auto moments = memory_over_step(work, predict_step(work, device_numbers("h100", "")).timeline);
  ASSERT_FALSE(moments.empty());
  double gathered = 0;
  double inputs = 0;
  for (const MemoryMoment& moment : moments) {
    gathered = std::max(gathered, moment.gathered);
    inputs = std::max(inputs, moment.inputs);
  }
  EXPECT_LE(gathered, 2 * work.stages[1].bytes + work.stages.back().bytes);
  EXPECT_GE(gathered, 2 * work.stages[1].bytes);
  EXPECT_EQ(inputs, 6 * 2.0 * 2048 * 8192);
  EXPECT_EQ(moments.back().gathered, 0);
  EXPECT_EQ(moments.back().inputs, 0);
  EXPECT_TRUE(std::ranges::is_sorted(moments, {}, &MemoryMoment::at));
}

}  // namespace
}  // namespace qshard
