// Golden training runs of PEFT's adapter kinds: ten AdamW steps each from adapter_init on a base that is quantized
// here.
#include <algorithm>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/formats/adapter_targets.h"
#include "core/formats/peft_adapter.h"
#include "correctness/golden_training.h"
#include "correctness/temporary_directory.h"

namespace qshard::reference {
namespace {

constexpr double kLearningRate = 2e-3;
constexpr std::int64_t kSteps = 10;

class GoldenAdapters : public testing::TestWithParam<const char*> {
 protected:
  [[nodiscard]] static std::filesystem::path folder() {
    return std::filesystem::path(QSHARD_GOLDEN_DIR) / "families" / GetParam();
  }

  [[nodiscard]] static EngineOptions options(DType dtype) {
    const std::filesystem::path path = folder() / "adapter_init" / "adapter_config.json";
    const AdapterConfig config = parse_adapter_config(read_file(path), path.string());
    EngineOptions options = golden_options(dtype);
    options.quantization.quant_storage = dtype;
    options.lora = lora_options(config, HfCheckpoint::open(folder() / "base").config());
    return options;
  }

  [[nodiscard]] static Trajectory run(const EngineOptions& options) {
    return train(folder(), "base", options, kLearningRate, kSteps);
  }
};

double distance(const Tensor& a, const Tensor& b) {
  const std::vector<float> x = to_floats(a.view());
  const std::vector<float> y = to_floats(b.view());
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    sum += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
  return std::sqrt(sum);
}

// Both sides compute in float; sums are ordered differently, and ten steps of AdamW carry the difference on.
TEST_P(GoldenAdapters, Float32LossesAndNorms) {
  const Trajectory got = run(options(DType::f32));
  const nlohmann::json golden = golden_run("fp32", folder());
  expect_relative(got.losses, golden.at("losses"), 1e-4, "loss");
  expect_relative(got.grad_norms, golden.at("grad_norms"), 1e-4, "gradient norm");
}

// bf16 keeps 8 bits; rounding points differ between kernels, so the curves agree to about that.
TEST_P(GoldenAdapters, Bfloat16Losses) {
  expect_relative(run(options(DType::bf16)).losses, golden_run("bf16", folder()).at("losses"), 1e-2, "loss");
}

// Where a tensor has gone in ten steps, beside the way it has come. AdamW makes steps of equal size of gradients of any
// size, so that elements whose gradient is all rounding go either way.
TEST_P(GoldenAdapters, EveryTensorEndsWherePeftsDoes) {
  const Trajectory got = run(options(DType::f32));
  const NamedTensors start = read_named_tensors(folder() / "adapter_init" / "adapter_model.safetensors");
  const NamedTensors golden = read_named_tensors(folder() / "adapter_final_fp32" / "adapter_model.safetensors");
  ASSERT_EQ(got.adapter.size(), golden.size());
  double largest = 0;
  for (const auto& [name, tensor] : golden) {
    const double way = distance(start.at(name), tensor);
    EXPECT_GT(way, 0) << name;
    EXPECT_TRUE(distance(got.adapter.at(name), tensor) <= 1e-3 * way) << name;
    largest = std::max(largest, distance(got.adapter.at(name), tensor) / way);
  }
  RecordProperty("largest distance, of the way", std::to_string(largest));
}

TEST_P(GoldenAdapters, WorldSizesAndStrategiesAgree) {
  expect_ranks_agree([](const EngineOptions& changed) { return run(changed); }, options(DType::f32),
                     {{2, ShardingStrategy::full_shard},
                      {3, ShardingStrategy::full_shard},
                      {2, ShardingStrategy::shard_grad_op},
                      {3, ShardingStrategy::shard_grad_op},
                      {2, ShardingStrategy::no_shard},
                      {3, ShardingStrategy::no_shard}});
}

// Saved by two ranks after two of four steps, with dropout, and gone on with by two and by other ones.
TEST_P(GoldenAdapters, SavedAndLoadedTheyGoOnToTheBit) {
  EngineOptions chosen = options(DType::bf16);
  chosen.world_size = 2;
  chosen.lora.dropout = 0.1;
  const HfCheckpoint checkpoint = HfCheckpoint::open(folder() / "base");
  const auto engine = make_sharded_engine(checkpoint, chosen);
  const std::vector<TokenBatch> ranks = golden_batches(2, folder());
  const auto steps = [&](TrainingEngine& of, std::int64_t first) {
    std::vector<double> losses;
    for (std::int64_t step = first; step < first + 2; ++step) {
      losses.push_back(of.train_step({ranks}, kLearningRate, step).loss);
    }
    return losses;
  };
  steps(*engine, 1);
  const NamedTensors adapter = engine->adapter();
  const NamedTensors optimizer = engine->optimizer_state();
  EXPECT_EQ(optimizer.size(), 2 * adapter.size());
  const std::vector<double> losses = steps(*engine, 3);
  const NamedTensors last = engine->adapter();

  chosen.world_size = 3;  // its shards lie elsewhere
  const auto between = make_sharded_engine(checkpoint, chosen);
  between->load_adapter(adapter);
  between->load_optimizer_state(optimizer);
  chosen.world_size = 2;
  const auto resumed = make_sharded_engine(checkpoint, chosen);
  resumed->load_adapter(between->adapter());
  resumed->load_optimizer_state(between->optimizer_state());
  EXPECT_EQ(steps(*resumed, 3), losses);
  const NamedTensors again = resumed->adapter();
  for (const auto& [name, tensor] : last) {
    EXPECT_TRUE(std::ranges::equal(again.at(name).bytes(), tensor.bytes())) << name;
    EXPECT_FALSE(std::ranges::equal(adapter.at(name).bytes(), tensor.bytes())) << name << " was not trained";
  }
}

// PEFT's tensors come back with their bytes, and so does its configuration, but that one layer and one pattern are
// written as lists.
TEST_P(GoldenAdapters, FilesComeBackAsTheSameBytes) {
  const ModelConfig model = HfCheckpoint::open(folder() / "base").config();
  const TemporaryDirectory directory;
  const PeftAdapter adapter = read_adapter(folder() / "adapter_final_fp32", model);
  write_adapter(directory.path(), adapter.config, adapter.tensors);
  const auto golden = [](const char* file) { return read_file(folder() / "adapter_final_fp32" / file); };
  EXPECT_TRUE(read_file(directory / "adapter_model.safetensors") == golden("adapter_model.safetensors"));
  Json config = parse_json(golden("adapter_config.json"), "golden");
  for (const char* key : {"layers_to_transform", "layers_pattern"}) {
    Json& value = config[key];
    if (!value.is_null() && !value.is_array()) value = Json::array({value});
  }
  EXPECT_EQ(parse_json(read_file(directory / "adapter_config.json"), "written"), config);
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenAdapters,
                         testing::Values("rslora_patterns", "targets_regex", "layers_to_transform", "dora", "lora_bias",
                                         "embedding_head_trained"),
                         [](const auto& of) { return std::string(of.param); });

}  // namespace
}  // namespace qshard::reference
