#pragma once

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "correctness/golden_llama.h"
#include "reference/sharded_engine.h"

namespace qshard::reference {

/// What a golden training run leaves.
struct Trajectory {
  std::vector<double> losses;  // before each step, and after the last
  std::vector<double> grad_norms;
  NamedTensors adapter;
};

/// Trains the golden run `of` again, from its adapter_init on its checkpoint `base`: `steps` AdamW steps on its batch.
/// `engine` holds all its ranks in this process.
inline Trajectory train(TrainingEngine& engine, const std::filesystem::path& of, double learning_rate,
                        std::int64_t steps) {
  engine.load_adapter(read_named_tensors(of / "adapter_init" / "adapter_model.safetensors"));
  const std::vector<TokenBatch> ranks = golden_batches(static_cast<std::size_t>(engine.world_size()), of);
  Trajectory result;
  for (std::int64_t step = 1; step <= steps; ++step) {
    const StepResult taken = engine.train_step({ranks}, learning_rate, step);
    result.losses.push_back(taken.loss);
    result.grad_norms.push_back(taken.grad_norm);
  }
  const LossSum last = engine.evaluate(ranks);
  result.losses.push_back(last.sum / static_cast<double>(last.loss_tokens));
  result.adapter = engine.adapter();
  return result;
}

/// The same by the reference.
inline Trajectory train(const std::filesystem::path& of, const std::string& base, const EngineOptions& options,
                        double learning_rate, std::int64_t steps) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(of / base);
  return train(*make_sharded_engine(checkpoint, options), of, learning_rate, steps);
}

/// Every number within `bound` of the expected one, relative to it; both of the same length.
inline void expect_relative(const std::vector<double>& got, const std::vector<double>& expected, double bound,
                            const char* what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  double largest = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(got[i] - expected[i]) / expected[i];
    EXPECT_TRUE(difference <= bound) << what << " " << i << ": " << got[i] << " against " << expected[i];
    largest = std::max(largest, difference);
  }
  ::testing::Test::RecordProperty(std::string(what) + ", largest relative difference", std::to_string(largest));
}

/// A number of ranks, and how they share a model.
struct RanksAndStrategy {
  int world_size;
  ShardingStrategy sharding;
};

/// run(options) over each of these gives the losses and gradient norms of run(alone) by one rank: other ranks add the
/// same gradients in another order.
template <typename Run>
void expect_ranks_agree(const Run& run, const EngineOptions& alone, const std::vector<RanksAndStrategy>& worlds) {
  const Trajectory expected = run(alone);
  for (const auto& [world_size, sharding] : worlds) {
    SCOPED_TRACE(testing::Message() << world_size << " ranks, " << to_string(sharding));
    EngineOptions changed = alone;
    changed.world_size = world_size;
    changed.sharding = sharding;
    const Trajectory got = run(changed);
    expect_relative(got.losses, expected.losses, 1e-5, "loss");
    expect_relative(got.grad_norms, expected.grad_norms, 1e-4, "gradient norm");
  }
}

}  // namespace qshard::reference
