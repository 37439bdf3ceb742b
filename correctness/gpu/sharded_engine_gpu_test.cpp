// The training step on a GPU against golden runs of transformers, PEFT and bitsandbytes, against the reference, and
// against itself.
#include <random>

#include "core/launch/rank_link.h"
#include "correctness/golden_training.h"
#include "correctness/gpu/gpu_testing.h"
#include "optimized/sharded/sharded_engine.h"

namespace qshard::test {
namespace {

using reference::expect_relative;
using reference::Trajectory;

RankLink alone() {
  return RankLink::connect(RankInfo{}, {});
}

RunBounds bounds_of(const TokenBatch& batch) {
  const BatchBound bound{batch.tokens(), batch.rows(), longest_row(batch)};
  return {bound, bound};
}

Trajectory train(const std::filesystem::path& of, const std::string& base, const EngineOptions& options,
                 double learning_rate, std::int64_t steps) {
  RankLink link = alone();
  const HfCheckpoint checkpoint = HfCheckpoint::open(of / base);
  const auto source = optimized::make_checkpoint_source(checkpoint);
  const auto engine =
      optimized::make_sharded_engine(checkpoint.config(), *source, options, bounds_of(golden_batches(1, of)[0]), link);
  return reference::train(*engine, of, learning_rate, steps);
}

class ShardedEngineGpu : public GpuTest {};

// Sums in float in another order than PyTorch's, and 20 steps of AdamW carry the difference on.
TEST_F(ShardedEngineGpu, GoldenLlamaInFloat32) {
  const Trajectory got = train(golden_llama(), "bnb4bit", golden_options(DType::f32), kGoldenLearningRate, 20);
  const nlohmann::json golden = golden_run("fp32");
  expect_relative(got.losses, golden.at("losses"), 2e-4, "loss");
  expect_relative(got.grad_norms, golden.at("grad_norms"), 1e-3, "gradient norm");
}

// bf16 keeps 8 bits; rounding points differ between kernels, so the curves agree to about that.
TEST_F(ShardedEngineGpu, GoldenLlamaInBfloat16) {
  const Trajectory got = train(golden_llama(), "bnb4bit", golden_options(DType::bf16), kGoldenLearningRate, 20);
  expect_relative(got.losses, golden_run("bf16").at("losses"), 1e-2, "loss");
}

class GoldenFamiliesGpu : public ShardedEngineGpu, public testing::WithParamInterface<const char*> {
 protected:
  [[nodiscard]] static std::filesystem::path folder() {
    return std::filesystem::path(QSHARD_GOLDEN_DIR) / "families" / GetParam();
  }
};

TEST_P(GoldenFamiliesGpu, Float32) {
  const Trajectory got = train(folder(), "base", golden_options(DType::f32), 2e-3, 10);
  const nlohmann::json golden = golden_run("fp32", folder());
  expect_relative(got.losses, golden.at("losses"), 2e-4, "loss");
  expect_relative(got.grad_norms, golden.at("grad_norms"), 1e-3, "gradient norm");
}

TEST_P(GoldenFamiliesGpu, Bfloat16) {
  const Trajectory got = train(folder(), "base", golden_options(DType::bf16), 2e-3, 10);
  expect_relative(got.losses, golden_run("bf16", folder()).at("losses"), 1e-2, "loss");
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenFamiliesGpu,
                         testing::Values("mistral_window", "qwen2", "qwen3", "llama_bias", "llama_llama3_rope",
                                         "llama_linear_rope", "llama_yarn_rope", "llama_dynamic_rope"),
                         [](const auto& of) { return std::string(of.param); });

void expect_same_bits(const Trajectory& a, const Trajectory& b) {
  EXPECT_EQ(a.losses, b.losses);
  EXPECT_EQ(a.grad_norms, b.grad_norms);
  ASSERT_EQ(a.adapter.size(), b.adapter.size());
  for (const auto& [name, tensor] : a.adapter) {
    const auto other = b.adapter.at(name).bytes();
    ASSERT_EQ(tensor.bytes().size(), other.size());
    EXPECT_EQ(std::memcmp(tensor.bytes().data(), other.data(), other.size()), 0) << name;
  }
}

EngineOptions with_dropout(DType dtype) {
  EngineOptions options = golden_options(dtype);
  options.lora.dropout = 0.1;
  return options;
}

TEST_F(ShardedEngineGpu, SameBitsRunToRunAndWhateverIsKept) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    EngineOptions options = with_dropout(dtype);
    const auto run = [&] { return train(golden_llama(), "bnb4bit", options, kGoldenLearningRate, 5); };
    const Trajectory first = run();
    expect_same_bits(first, run());
    for (const auto recomputing : {MemorySaving::always, MemorySaving::never}) {
      for (const auto offloading : {MemorySaving::always, MemorySaving::never}) {
        options.gradient_checkpointing = recomputing;
        options.activation_offloading = offloading;
        expect_same_bits(first, run());
      }
    }
  }
}

TEST_F(ShardedEngineGpu, EveryQuantStorageGivesTheSameBits) {
  const EngineOptions options = with_dropout(DType::bf16);
  const Trajectory first = train(golden_llama(), "base", options, kGoldenLearningRate, 3);
  for (const DType storage : {DType::bf16, DType::f16, DType::f32}) {
    EngineOptions changed = options;
    changed.quantization.quant_storage = storage;
    expect_same_bits(first, train(golden_llama(), "base", changed, kGoldenLearningRate, 3));
  }
}

// Dropout's masks are the reference's, so that only the order of sums tells the two apart.
TEST_F(ShardedEngineGpu, LikeTheReferenceWithDropout) {
  const EngineOptions options = with_dropout(DType::f32);
  const Trajectory wanted = reference::train(golden_llama(), "bnb4bit", options, kGoldenLearningRate, 5);
  const Trajectory got = train(golden_llama(), "bnb4bit", options, kGoldenLearningRate, 5);
  expect_relative(got.losses, wanted.losses, 1e-4, "loss");
  expect_relative(got.grad_norms, wanted.grad_norms, 1e-3, "gradient norm");
}

// Adapters add nothing to it yet, but have gradients, under dropout.
TEST_F(ShardedEngineGpu, FirstStepInBfloat16) {
  const EngineOptions options = with_dropout(DType::bf16);
  const Trajectory wanted = reference::train(golden_llama(), "bnb4bit", options, kGoldenLearningRate, 1);
  const Trajectory got = train(golden_llama(), "bnb4bit", options, kGoldenLearningRate, 1);
  expect_relative(got.losses, wanted.losses, 1e-2, "loss");
  expect_relative(got.grad_norms, wanted.grad_norms, 5e-2, "gradient norm");
}

// What one engine saves another loads, to the bit; the optimizer's state goes on.
class ShardedEngineMomentsGpu : public ShardedEngineGpu, public testing::WithParamInterface<MomentFormat> {};

TEST_P(ShardedEngineMomentsGpu, ResumesToTheBit) {
  EngineOptions options = with_dropout(DType::bf16);
  options.optimizer.moments = GetParam();
  const HfCheckpoint checkpoint = HfCheckpoint::open(golden_llama() / "bnb4bit");
  const auto source = optimized::make_checkpoint_source(checkpoint);
  const std::vector<TokenBatch> batch = golden_batches(1);
  RankLink link = alone();
  const auto engine = [&] {
    return optimized::make_sharded_engine(checkpoint.config(), *source, options, bounds_of(batch[0]), link);
  };
  const auto whole = engine();
  std::vector<double> losses;
  for (std::int64_t step = 1; step <= 4; ++step) losses.push_back(whole->train_step({batch}, 1e-3, step).loss);
  const auto first = engine();
  for (std::int64_t step = 1; step <= 2; ++step) first->train_step({batch}, 1e-3, step);
  const auto second = engine();
  second->load_adapter(first->adapter());
  second->load_optimizer_state(first->optimizer_state());
  for (std::int64_t step = 3; step <= 4; ++step) {
    EXPECT_EQ(second->train_step({batch}, 1e-3, step).loss, losses[static_cast<std::size_t>(step) - 1]);
  }
  const NamedTensors expected = whole->adapter();
  for (const auto& [name, tensor] : second->adapter()) {
    EXPECT_EQ(std::memcmp(tensor.bytes().data(), expected.at(name).bytes().data(), tensor.bytes().size()), 0) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Moments, ShardedEngineMomentsGpu,
                         testing::Values(MomentFormat::lora_dtype, MomentFormat::float32,
                                         MomentFormat::blockwise_8bit));

// What the reference saves the GPU loads and gives back to the bit, and goes on like it.
TEST_F(ShardedEngineGpu, EightBitMomentsOfTheReference) {
  EngineOptions options = with_dropout(DType::f32);
  options.optimizer.moments = MomentFormat::blockwise_8bit;
  const HfCheckpoint checkpoint = HfCheckpoint::open(golden_llama() / "bnb4bit");
  const std::vector<TokenBatch> batch = golden_batches(1);
  const auto reference = reference::make_sharded_engine(checkpoint, options);
  for (std::int64_t step = 1; step <= 2; ++step) reference->train_step({batch}, kGoldenLearningRate, step);
  const auto source = optimized::make_checkpoint_source(checkpoint);
  RankLink link = alone();
  const auto engine = optimized::make_sharded_engine(checkpoint.config(), *source, options, bounds_of(batch[0]), link);
  const NamedTensors state = reference->optimizer_state();
  engine->load_adapter(reference->adapter());
  engine->load_optimizer_state(state);
  const NamedTensors given_back = engine->optimizer_state();
  ASSERT_EQ(given_back.size(), state.size());
  for (const auto& [name, tensor] : state) {
    EXPECT_EQ(std::memcmp(tensor.bytes().data(), given_back.at(name).bytes().data(), tensor.bytes().size()), 0) << name;
  }
  std::vector<double> wanted, got;
  for (std::int64_t step = 3; step <= 5; ++step) {
    wanted.push_back(reference->train_step({batch}, kGoldenLearningRate, step).loss);
    got.push_back(engine->train_step({batch}, kGoldenLearningRate, step).loss);
  }
  expect_relative(got, wanted, 1e-4, "loss");
}

TEST_F(ShardedEngineGpu, RefusesTokensOutsideTheVocabulary) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(golden_llama() / "bnb4bit");
  const auto source = optimized::make_checkpoint_source(checkpoint);
  std::vector<TokenBatch> batch = golden_batches(1);
  RankLink link = alone();
  const auto engine = optimized::make_sharded_engine(checkpoint.config(), *source, golden_options(DType::bf16),
                                                     bounds_of(batch[0]), link);
  batch[0].input_ids[5] = static_cast<std::int32_t>(checkpoint.config().vocab_size);
  EXPECT_THROW(engine->train_step({batch}, 1e-3, 1), Error);
}

}  // namespace
}  // namespace qshard::test
