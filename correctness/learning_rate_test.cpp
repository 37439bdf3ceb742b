#include "core/training/learning_rate.h"

#include <gtest/gtest.h>

namespace qshard {
namespace {

// Expected values: transformers' get_scheduler evaluated by hand at peak 1.
TEST(LearningRate, WarmsUpFromZero) {
  for (const Scheduler scheduler : {Scheduler::constant_with_warmup, Scheduler::linear, Scheduler::cosine}) {
    const LearningRateSchedule schedule{scheduler, 1.0, 4, 20};
    EXPECT_EQ(schedule.at(1), 0.0);
    EXPECT_EQ(schedule.at(2), 0.25);
    EXPECT_EQ(schedule.at(4), 0.75);
    EXPECT_EQ(schedule.at(5), 1.0);
  }
}

TEST(LearningRate, FollowsItsCurveAfterWarmUp) {
  const LearningRateSchedule constant{Scheduler::constant, 2.0, 4, 20};
  EXPECT_EQ(constant.at(20), 2.0);
  const LearningRateSchedule linear{Scheduler::linear, 2.0, 4, 20};
  EXPECT_EQ(linear.at(13), 1.0);
  EXPECT_DOUBLE_EQ(linear.at(20), 2.0 / 16);
  EXPECT_EQ(linear.at(30), 0.0);
  const LearningRateSchedule cosine{Scheduler::cosine, 2.0, 4, 20};
  EXPECT_DOUBLE_EQ(cosine.at(13), 1.0);
  EXPECT_DOUBLE_EQ(cosine.at(9), 1.0 + 0.70710678118654757);
  EXPECT_NEAR(cosine.at(21), 0.0, 1e-15);
}

TEST(LearningRate, ConstantHasNoWarmUp) {
  EXPECT_EQ((LearningRateSchedule{Scheduler::constant, 3.0, 4, 10}).at(1), 3.0);
}

TEST(LearningRate, NoWarmUpStartsAtThePeak) {
  EXPECT_EQ((LearningRateSchedule{Scheduler::linear, 3.0, 0, 10}).at(1), 3.0);
}

TEST(LearningRate, StepsOfWarmUpComeBeforeTheRatio) {
  TrainingConfig training;
  training.warmup_ratio = 0.05;
  EXPECT_EQ(learning_rate_schedule(training, 30).warmup_steps, 2);  // ceil(1.5)
  training.warmup_steps = 7;
  EXPECT_EQ(learning_rate_schedule(training, 30).warmup_steps, 7);
  training.warmup_steps = 1;
  EXPECT_EQ(learning_rate_schedule(training, 30).warmup_steps, 1);
  training.warmup_steps = 0.11;
  EXPECT_EQ(learning_rate_schedule(training, 30).warmup_steps, 4);  // ceil(3.3)
}

}  // namespace
}  // namespace qshard
