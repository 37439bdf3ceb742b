// Golden training runs of PEFT's adapter kinds: ten AdamW steps each from adapter_init on a base that is quantized
// here.
#include "core/base/file.h"
#include "core/formats/adapter_targets.h"
#include "correctness/golden_training.h"

namespace qshard::reference {
namespace {

constexpr double kLearningRate = 2e-3;
constexpr std::int64_t kSteps = 10;

class GoldenAdapters : public testing::TestWithParam<const char*> {
 protected:
  [[nodiscard]] static std::filesystem::path folder() {
    return std::filesystem::path(QSHARD_GOLDEN_DIR) / "families" / GetParam();
  }

  [[nodiscard]] static Trajectory run(DType dtype) {
    const std::filesystem::path path = folder() / "adapter_init" / "adapter_config.json";
    const AdapterConfig config = parse_adapter_config(read_file(path), path.string());
    EngineOptions options = golden_options(dtype);
    options.quantization.quant_storage = dtype;
    options.lora = lora_options(config, HfCheckpoint::open(folder() / "base").config());
    return train(folder(), "base", options, kLearningRate, kSteps);
  }
};

// Both sides compute in float; sums are ordered differently, and ten steps of AdamW carry the difference on.
TEST_P(GoldenAdapters, Float32LossesAndNorms) {
  const Trajectory got = run(DType::f32);
  const nlohmann::json golden = golden_run("fp32", folder());
  expect_relative(got.losses, golden.at("losses"), 1e-4, "loss");
  expect_relative(got.grad_norms, golden.at("grad_norms"), 1e-4, "gradient norm");
}

// bf16 keeps 8 bits; rounding points differ between kernels, so the curves agree to about that.
TEST_P(GoldenAdapters, Bfloat16Losses) {
  expect_relative(run(DType::bf16).losses, golden_run("bf16", folder()).at("losses"), 1e-2, "loss");
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenAdapters,
                         testing::Values("rslora_patterns", "targets_regex", "layers_to_transform"),
                         [](const auto& of) { return std::string(of.param); });

}  // namespace
}  // namespace qshard::reference
