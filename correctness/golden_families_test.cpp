// Golden training runs of transformers, PEFT and bitsandbytes for every model family, bias and rope type: ten AdamW
// steps each from adapter_init on a base that is quantized here.
#include "correctness/golden_training.h"
#include "correctness/matrix_testing.h"
#include "reference/llama_ends.h"
#include "reference/sharded_weights.h"

namespace qshard::reference {
namespace {

constexpr double kLearningRate = 2e-3;
constexpr std::int64_t kSteps = 10;

class GoldenFamilies : public testing::TestWithParam<const char*> {
 protected:
  [[nodiscard]] static std::filesystem::path folder() {
    return std::filesystem::path(QSHARD_GOLDEN_DIR) / "families" / GetParam();
  }

  [[nodiscard]] static EngineOptions options(DType dtype) {
    EngineOptions options = golden_options(dtype);
    options.quantization.quant_storage = dtype;
    return options;
  }

  [[nodiscard]] static Trajectory run(const EngineOptions& options) {
    return train(folder(), "base", options, kLearningRate, kSteps);
  }
};

// Both sides compute in float; sums are ordered differently, and ten steps of AdamW carry the difference on.
TEST_P(GoldenFamilies, Float32LossesAndNorms) {
  const Trajectory got = run(options(DType::f32));
  const nlohmann::json golden = golden_run("fp32", folder());
  expect_relative(got.losses, golden.at("losses"), 1e-4, "loss");
  expect_relative(got.grad_norms, golden.at("grad_norms"), 1e-4, "gradient norm");
}

// bf16 keeps 8 bits; rounding points differ between kernels, so the curves agree to about that.
TEST_P(GoldenFamilies, Bfloat16Losses) {
  expect_relative(run(options(DType::bf16)).losses, golden_run("bf16", folder()).at("losses"), 1e-2, "loss");
}

TEST_P(GoldenFamilies, WorldSizesAndStrategiesAgree) {
  expect_ranks_agree([](const EngineOptions& changed) { return run(changed); }, options(DType::f32),
                     {{2, ShardingStrategy::full_shard},
                      {3, ShardingStrategy::full_shard},
                      {3, ShardingStrategy::shard_grad_op},
                      {2, ShardingStrategy::no_shard}});
}

// The logits of the first two rows before training, at every position.
TEST_P(GoldenFamilies, FirstLogits) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(folder() / "base");
  const ModelConfig& config = checkpoint.config();
  const EngineOptions chosen = options(DType::f32);
  const auto none = [](const std::string&, const Shape&) { return std::nullopt; };
  const ShardLayout layout = plan_shards(list_model_stages(config, chosen.quantization, chosen.lora, DType::f32, none),
                                         1, ShardingStrategy::no_shard);
  std::vector<MemoryLedger> ranks(1);
  const ShardedWeights weights(layout, checkpoint, chosen.quantization, make_process_group(1, nullptr),
                               ranks);  // the adapter is zero

  const TokenBatch batch = golden_batches(2, folder())[0];
  const RopeTable<float> rope = make_rope_table<float>(config, batch.offsets[1], DType::f32);
  LayerContext<float> context{.config = &config, .rope = &rope, .batch = &batch};
  Matrix<float> x = embed(weights.ends(0), batch);
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    context.layer = static_cast<std::uint32_t>(layer);
    x = layer_forward<float>(context, weights.layer(layer, 0), x, nullptr);
  }
  const Matrix<float> logits = output_logits(context, weights.ends(0), x);

  const NamedTensors golden = read_named_tensors(folder() / "trajectory.safetensors");
  const std::vector<float> recorded = to_floats(golden.at("fp32.logits0").view());
  ASSERT_EQ(static_cast<Eigen::Index>(recorded.size()), logits.size());
  const Matrix<float> expected = Eigen::Map<const Matrix<float>>(recorded.data(), logits.rows(), logits.cols());
  const float greatest = expected.cwiseAbs().maxCoeff();
  const float difference = (logits - expected).cwiseAbs().maxCoeff();
  RecordProperty("relative_difference", std::to_string(difference / greatest));
  // Both sides sum in float, in different orders: some hundred roundings of 2^-24 on the way to a logit.
  expect_near(expected, logits, 2e-4 * greatest, "logits");
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenFamilies,
                         testing::Values("mistral_window", "qwen2", "qwen3", "llama_bias", "llama_llama3_rope",
                                         "llama_linear_rope", "llama_yarn_rope", "llama_dynamic_rope"),
                         [](const auto& of) { return std::string(of.param); });

}  // namespace
}  // namespace qshard::reference
