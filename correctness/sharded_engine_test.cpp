#include "reference/sharded_engine.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/run/engine_options.h"
#include "core/sharding/sharding_strategy.h"
#include "correctness/expect_error.h"
#include "correctness/golden_llama.h"

namespace qshard::reference {
namespace {

using MicroBatches = std::vector<std::vector<TokenBatch>>;

EngineOptions base_options() {
  EngineOptions options = golden_options(DType::f32);
  options.lora.dropout = 0.1;
  return options;
}

std::unique_ptr<TrainingEngine> make_engine(const EngineOptions& options, const std::string& model = "base") {
  auto engine = make_sharded_engine(HfCheckpoint::open(golden_llama() / model), options);
  engine->load_adapter(read_named_tensors(golden_llama() / "adapter_init" / "adapter_model.safetensors"));
  return engine;
}

// The golden batch dealt to `world_size` ranks in `accumulation` steps.
MicroBatches deal(std::size_t world_size, std::size_t accumulation) {
  const std::vector<TokenBatch> rows = golden_batches(4);
  MicroBatches micro(accumulation, std::vector<TokenBatch>(world_size));
  for (std::size_t row = 0; row < rows.size(); ++row) {
    TokenBatch& to = micro[row % accumulation][row / accumulation % world_size];
    to.input_ids.insert(to.input_ids.end(), rows[row].input_ids.begin(), rows[row].input_ids.end());
    to.labels.insert(to.labels.end(), rows[row].labels.begin(), rows[row].labels.end());
    to.offsets.push_back(to.tokens());
    to.row_ids.push_back(rows[row].row_ids[0]);
  }
  return micro;
}

std::vector<double> train(TrainingEngine& engine, const MicroBatches& micro, std::int64_t first, std::int64_t last) {
  std::vector<double> losses;
  for (std::int64_t step = first; step <= last; ++step) {
    losses.push_back(engine.train_step(micro, kGoldenLearningRate, step).loss);
  }
  return losses;
}

void expect_same_bits(const NamedTensors& a, const NamedTensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    const auto left = tensor.bytes();
    const auto right = b.at(name).bytes();
    EXPECT_TRUE(std::equal(left.begin(), left.end(), right.begin(), right.end())) << name;
  }
}

struct Sharding {
  int world_size;
  std::size_t accumulation;
  ShardingStrategy strategy;

  friend void PrintTo(const Sharding& sharding, std::ostream* out) {
    *out << to_string(sharding.strategy) << " " << sharding.world_size << " x " << sharding.accumulation;
  }
};

class SameGlobalBatch : public testing::TestWithParam<Sharding> {};

// Ranks and accumulation change the order of sums only: 2^-24 a term, a few hundred terms, 8 steps.
TEST_P(SameGlobalBatch, GivesTheLossesOfOneRank) {
  const auto whole = make_engine(base_options());
  const std::vector<double> expected = train(*whole, deal(1, 1), 1, 8);
  EngineOptions options = base_options();
  options.world_size = GetParam().world_size;
  options.sharding = GetParam().strategy;
  options.shard_group = options.world_size / 2;
  const auto engine = make_engine(options);
  const std::vector<double> got =
      train(*engine, deal(static_cast<std::size_t>(options.world_size), GetParam().accumulation), 1, 8);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(std::abs(got[i] - expected[i]) <= 1e-5 * expected[i]) << i << ": " << got[i] << " " << expected[i];
  }
}

INSTANTIATE_TEST_SUITE_P(
    WorldsAndStrategies, SameGlobalBatch,
    testing::Values(Sharding{2, 1, ShardingStrategy::full_shard}, Sharding{3, 1, ShardingStrategy::full_shard},
                    Sharding{2, 1, ShardingStrategy::shard_grad_op}, Sharding{3, 1, ShardingStrategy::shard_grad_op},
                    Sharding{2, 1, ShardingStrategy::no_shard}, Sharding{3, 1, ShardingStrategy::no_shard},
                    Sharding{1, 2, ShardingStrategy::full_shard}, Sharding{1, 4, ShardingStrategy::full_shard},
                    Sharding{2, 2, ShardingStrategy::full_shard}, Sharding{2, 2, ShardingStrategy::no_shard},
                    Sharding{4, 1, ShardingStrategy::hybrid_shard}, Sharding{2, 2, ShardingStrategy::hybrid_shard},
                    Sharding{8, 1, ShardingStrategy::full_shard}, Sharding{8, 1, ShardingStrategy::hybrid_shard}));

TEST(ShardedEngine, StrategiesAgreeToTheBitAtOneWorldSize) {
  EngineOptions options = base_options();
  options.world_size = 3;
  const auto full = make_engine(options);
  options.sharding = ShardingStrategy::shard_grad_op;
  const auto grad_op = make_engine(options);
  EXPECT_EQ(train(*full, deal(3, 1), 1, 4), train(*grad_op, deal(3, 1), 1, 4));
  expect_same_bits(full->adapter(), grad_op->adapter());
}

// Groups change where shards lie, not what is added up, except for the norm, which clips nothing here.
TEST(ShardedEngine, GroupsChangeNoBit) {
  EngineOptions options = base_options();
  options.world_size = 4;
  options.max_grad_norm = 0;
  const auto full = make_engine(options);
  options.sharding = ShardingStrategy::hybrid_shard;
  options.shard_group = 2;
  const auto hybrid = make_engine(options);
  EXPECT_EQ(train(*full, deal(4, 1), 1, 4), train(*hybrid, deal(4, 1), 1, 4));
  expect_same_bits(full->adapter(), hybrid->adapter());
  expect_same_bits(full->optimizer_state(), hybrid->optimizer_state());
  EXPECT_GT(hybrid->peak_bytes_by_rank()[3], full->peak_bytes_by_rank()[3]);
}

TEST(ShardedEngine, QuantStorageChangesNoBit) {
  EngineOptions options = base_options();
  options.world_size = 2;
  std::vector<double> expected;
  NamedTensors adapter;
  for (const DType storage : {DType::u8, DType::bf16, DType::f16, DType::f32}) {
    options.quantization.quant_storage = storage;
    const auto engine = make_engine(options);
    const std::vector<double> losses = train(*engine, deal(2, 1), 1, 3);
    if (expected.empty()) {
      expected = losses;
      adapter = engine->adapter();
    }
    EXPECT_EQ(losses, expected) << torch_name(storage);
    expect_same_bits(engine->adapter(), adapter);
  }
}

TEST(ShardedEngine, RecomputationChangesNoBit) {
  EngineOptions options = base_options();
  const auto recomputed = make_engine(options);
  options.gradient_checkpointing = MemorySaving::never;
  const auto kept = make_engine(options);
  EXPECT_EQ(train(*recomputed, deal(1, 1), 1, 4), train(*kept, deal(1, 1), 1, 4));
  expect_same_bits(recomputed->adapter(), kept->adapter());
  EXPECT_LT(recomputed->peak_bytes_by_rank()[0], kept->peak_bytes_by_rank()[0]);
}

TEST(ShardedEngine, TwoRunsOfOneSeedAgreeToTheBit) {
  const auto first = make_engine(base_options());
  const auto second = make_engine(base_options());
  EXPECT_EQ(train(*first, deal(1, 1), 1, 3), train(*second, deal(1, 1), 1, 3));
  expect_same_bits(first->adapter(), second->adapter());
}

// Saved after any step by two ranks, resumed by two: the run that was never stopped, to the bit.
TEST(ShardedEngine, ResumeContinuesToTheBit) {
  EngineOptions options = base_options();
  options.world_size = 2;
  const auto straight = make_engine(options);
  const std::vector<double> expected = train(*straight, deal(2, 1), 1, 5);
  for (std::int64_t stop = 1; stop < 5; ++stop) {
    const auto before = make_engine(options);
    train(*before, deal(2, 1), 1, stop);
    const auto after = make_sharded_engine(HfCheckpoint::open(golden_llama() / "base"), options);
    after->load_adapter(before->adapter());
    after->load_optimizer_state(before->optimizer_state());
    const std::vector<double> rest = train(*after, deal(2, 1), stop + 1, 5);
    EXPECT_TRUE(std::equal(rest.begin(), rest.end(), expected.begin() + stop)) << "stopped after " << stop;
    expect_same_bits(after->adapter(), straight->adapter());
  }
}

TEST(ShardedEngine, StateMovesBetweenWorldSizesToTheBit) {
  EngineOptions options = base_options();
  options.world_size = 2;
  const auto two = make_engine(options);
  train(*two, deal(2, 1), 1, 2);
  for (const ShardingStrategy strategy : {ShardingStrategy::full_shard, ShardingStrategy::no_shard}) {
    options.world_size = 3;
    options.sharding = strategy;
    const auto three = make_engine(options);
    three->load_adapter(two->adapter());
    three->load_optimizer_state(two->optimizer_state());
    expect_same_bits(three->adapter(), two->adapter());
    expect_same_bits(three->optimizer_state(), two->optimizer_state());
  }
}

constexpr MomentFormat kMoments[] = {MomentFormat::float32, MomentFormat::bfloat16, MomentFormat::blockwise_8bit};

EngineOptions with_moments(MomentFormat moments, int world_size) {
  EngineOptions options = base_options();
  options.optimizer.moments = moments;
  options.world_size = world_size;
  return options;
}

// Batches on rank 0 alone, without clipping: then every world size adds up the same gradients, and all that it changes
// is where the shards are cut.
TEST(ShardedEngine, MomentsOfEveryFormGiveTheSameBitsAtEveryWorldSize) {
  for (const MomentFormat moments : kMoments) {
    NamedTensors adapter;
    NamedTensors state;
    for (const int world_size : {1, 2, 3}) {
      EngineOptions options = with_moments(moments, world_size);
      options.max_grad_norm = 0;
      const auto engine = make_engine(options);
      MicroBatches micro(1, std::vector<TokenBatch>(static_cast<std::size_t>(world_size)));
      micro[0][0] = golden_batches(4)[0];
      train(*engine, micro, 1, 3);
      if (world_size == 1) {
        adapter = engine->adapter();
        state = engine->optimizer_state();
      }
      expect_same_bits(engine->adapter(), adapter);
      expect_same_bits(engine->optimizer_state(), state);
    }
  }
}

TEST(ShardedEngine, MomentsOfEveryFormAreSavedInIt) {
  const auto expect = [](MomentFormat moments, DType dtype, std::size_t tensors) {
    const auto engine = make_engine(with_moments(moments, 2));
    train(*engine, deal(2, 1), 1, 1);
    const NamedTensors adapter = engine->adapter();
    const NamedTensors state = engine->optimizer_state();
    EXPECT_EQ(state.size(), tensors * adapter.size());
    for (const auto& [name, tensor] : adapter) {
      for (const char* suffix : {".exp_avg", ".exp_avg_sq"}) {
        EXPECT_EQ(state.at(name + suffix).dtype(), dtype);
        EXPECT_EQ(state.at(name + suffix).shape(), tensor.shape());
        if (dtype != DType::u8) continue;
        const Tensor& absmax = state.at(name + suffix + ".absmax");
        EXPECT_EQ(absmax.dtype(), DType::f32);
        EXPECT_EQ(absmax.shape(), (Shape{(element_count(tensor.shape()) + 255) / 256}));
      }
    }
  };
  expect(MomentFormat::lora_dtype, DType::f32, 2);
  expect(MomentFormat::float32, DType::f32, 2);
  expect(MomentFormat::bfloat16, DType::bf16, 2);
  expect(MomentFormat::blockwise_8bit, DType::u8, 4);
}

// Saved by two ranks, loaded by two: the run that was never stopped; by three, sharded or not: the same state.
TEST(ShardedEngine, MomentsOfEveryFormResumeToTheBit) {
  for (const MomentFormat moments : kMoments) {
    EngineOptions options = with_moments(moments, 2);
    const auto straight = make_engine(options);
    train(*straight, deal(2, 1), 1, 2);
    const NamedTensors adapter = straight->adapter();
    const NamedTensors state = straight->optimizer_state();
    const std::vector<double> expected = train(*straight, deal(2, 1), 3, 4);
    const auto after = make_engine(options);
    after->load_adapter(adapter);
    after->load_optimizer_state(state);
    EXPECT_EQ(train(*after, deal(2, 1), 3, 4), expected);
    expect_same_bits(after->adapter(), straight->adapter());
    expect_same_bits(after->optimizer_state(), straight->optimizer_state());
    for (const ShardingStrategy strategy : {ShardingStrategy::full_shard, ShardingStrategy::no_shard}) {
      options.world_size = 3;
      options.sharding = strategy;
      const auto three = make_engine(options);
      three->load_optimizer_state(state);
      expect_same_bits(three->optimizer_state(), state);
    }
  }
}

TEST(ShardedEngine, RefusesAnotherKindOfMomentsByBothNames) {
  const auto refuse = [](MomentFormat saved, MomentFormat run, std::initializer_list<std::string_view> names) {
    const NamedTensors state = make_engine(with_moments(saved, 1))->optimizer_state();
    const auto engine = make_engine(with_moments(run, 2));
    expect_bad_input(names, [&] { engine->load_optimizer_state(state); });
  };
  refuse(MomentFormat::float32, MomentFormat::blockwise_8bit, {"float32 moments", "8-bit ones", "training.optim"});
  refuse(MomentFormat::blockwise_8bit, MomentFormat::lora_dtype, {"8-bit moments", "float32 ones"});
  refuse(MomentFormat::float32, MomentFormat::bfloat16, {"float32 moments", "bfloat16 ones", "optim_moments_dtype"});
  NamedTensors state = make_engine(with_moments(MomentFormat::blockwise_8bit, 1))->optimizer_state();
  const std::string absmax = state.begin()->first + ".absmax";
  state.erase(absmax);
  const auto engine = make_engine(with_moments(MomentFormat::blockwise_8bit, 2));
  expect_bad_input({absmax, "missing"}, [&] { engine->load_optimizer_state(state); });
}

// 8-bit moments take other steps than float ones, but lead about as far.
TEST(ShardedEngine, EightBitMomentsLearnLikeFloatOnes) {
  const auto with_float = make_engine(with_moments(MomentFormat::float32, 1));
  const auto with_8bit = make_engine(with_moments(MomentFormat::blockwise_8bit, 1));
  const std::vector<double> expected = train(*with_float, deal(1, 1), 1, 12);
  const std::vector<double> got = train(*with_8bit, deal(1, 1), 1, 12);
  EXPECT_LT(expected.back(), 0.98 * expected.front());
  EXPECT_NEAR(got.back(), expected.back(), 0.05 * (expected.front() - expected.back()));
}

TEST(ShardedEngine, FirstStepWithZeroBHasTheBasesLossAndNoGradientForA) {
  EngineOptions options = base_options();
  options.max_grad_norm = 0;
  const auto engine = make_sharded_engine(HfCheckpoint::open(golden_llama() / "base"), options);
  const NamedTensors before = engine->adapter();
  const TokenBatch batch = golden_batches(1)[0];
  const LossSum base = engine->evaluate({batch});
  const StepResult first = engine->train_step({{batch}}, kGoldenLearningRate, 1);
  EXPECT_EQ(first.loss, base.sum / static_cast<double>(base.loss_tokens));
  const NamedTensors state = engine->optimizer_state();
  for (const auto& [name, tensor] : state) {
    const std::vector<float> values = to_floats(tensor.view());
    const bool all_zero = std::all_of(values.begin(), values.end(), [](float v) { return v == 0.0F; });
    EXPECT_EQ(all_zero, name.find("lora_A") != std::string::npos) << name;
  }
}

TEST(ShardedEngine, InitializesAUniformlyAndBToZero) {
  const auto engine = make_sharded_engine(HfCheckpoint::open(golden_llama() / "base"), base_options());
  for (const auto& [name, tensor] : engine->adapter()) {
    const std::vector<float> values = to_floats(tensor.view());
    double largest = 0;
    double squares = 0;
    for (const float v : values) {
      largest = std::max(largest, static_cast<double>(std::abs(v)));
      squares += static_cast<double>(v) * v;
    }
    if (name.find("lora_B") != std::string::npos) {
      EXPECT_EQ(largest, 0) << name;
      continue;
    }
    const double bound = 1.0 / std::sqrt(static_cast<double>(tensor.shape()[1]));
    EXPECT_LE(largest, bound) << name;
    // Variance of a uniform distribution is bound^2 / 3; with 2,048 values or more its estimate is within 10 %.
    EXPECT_NEAR(squares / static_cast<double>(values.size()) / (bound * bound / 3), 1.0, 0.1) << name;
  }
}

TEST(ShardedEngine, NotFiniteLossUpdatesNothing) {
  const auto engine = make_engine(base_options());
  NamedTensors broken = engine->adapter();
  broken.begin()->second.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  for (auto& [name, tensor] : broken) {
    if (name.find("lora_B") != std::string::npos) tensor.as<float>()[0] = 1.0F;
  }
  engine->load_adapter(broken);
  const StepResult result = engine->train_step({golden_batches(1)}, kGoldenLearningRate, 1);
  EXPECT_FALSE(std::isfinite(result.loss));
  expect_same_bits(engine->adapter(), broken);
}

TEST(ShardedEngine, RejectsBadTokensAndForeignAdapters) {
  const auto engine = make_engine(base_options());
  TokenBatch batch = golden_batches(1)[0];
  batch.input_ids[3] = 512;
  expect_bad_input({"token 3", "512"}, [&] { engine->train_step({{batch}}, 1e-3, 1); });
  TokenBatch masked = golden_batches(1)[0];
  std::fill(masked.labels.begin(), masked.labels.end(), kIgnoredLabel);
  expect_bad_input({"no token to learn from"}, [&] { engine->train_step({{masked}}, 1e-3, 1); });
  NamedTensors adapter = engine->adapter();
  const std::string name = adapter.begin()->first;
  adapter.erase(adapter.begin());
  expect_bad_input({"missing", name}, [&] { engine->load_adapter(adapter); });
}

}  // namespace
}  // namespace qshard::reference
