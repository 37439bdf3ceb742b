// The golden training run of PyTorch + PEFT + bitsandbytes, repeated: 20 AdamW steps from adapter_init on the
// prequantized base.
#include <cmath>

#include <gtest/gtest.h>

#include "correctness/golden_llama.h"
#include "reference/sharded_engine.h"

namespace qshard::reference {
namespace {

struct Trajectory {
  std::vector<double> losses;  // before each step, and after the last
  std::vector<double> grad_norms;
  NamedTensors adapter;
};

Trajectory train(const EngineOptions& options) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(golden_llama() / "bnb4bit");
  const auto engine = make_sharded_engine(checkpoint, options);
  engine->load_adapter(read_named_tensors(golden_llama() / "adapter_init" / "adapter_model.safetensors"));
  const std::vector<TokenBatch> batch = golden_batches(1);
  Trajectory result;
  for (std::int64_t step = 1; step <= 20; ++step) {
    const StepResult taken = engine->train_step({batch}, kGoldenLearningRate, step);
    result.losses.push_back(taken.loss);
    result.grad_norms.push_back(taken.grad_norm);
  }
  const LossSum last = engine->evaluate({batch[0]});
  result.losses.push_back(last.sum / static_cast<double>(last.loss_tokens));
  result.adapter = engine->adapter();
  return result;
}

void expect_relative(const std::vector<double>& got, const nlohmann::json& expected, double bound, const char* what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double wanted = expected[i].get<double>();
    EXPECT_TRUE(std::abs(got[i] - wanted) <= bound * wanted)
        << what << " " << i << ": " << got[i] << " against " << wanted;
  }
}

// Norm of the difference over the norm, all tensors together.
double relative_difference(const NamedTensors& got, const NamedTensors& expected) {
  double difference = 0;
  double norm = 0;
  for (const auto& [name, tensor] : expected) {
    const std::vector<float> a = to_floats(got.at(name).view());
    const std::vector<float> b = to_floats(tensor.view());
    for (std::size_t i = 0; i < b.size(); ++i) {
      difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
      norm += std::pow(static_cast<double>(b[i]), 2);
    }
  }
  return std::sqrt(difference / norm);
}

// Both sides compute in float; sums are ordered differently, and 20 steps of AdamW carry the difference on.
TEST(GoldenTraining, Float32LossesNormsAndAdapter) {
  const Trajectory got = train(golden_options(DType::f32));
  const nlohmann::json run = golden_run("fp32");
  expect_relative(got.losses, run.at("losses"), 1e-4, "loss");
  expect_relative(got.grad_norms, run.at("grad_norms"), 1e-4, "gradient norm");
  const NamedTensors final = read_named_tensors(golden_llama() / "adapter_final_fp32" / "adapter_model.safetensors");
  ASSERT_EQ(got.adapter.size(), final.size());
  const double difference = relative_difference(got.adapter, final);
  EXPECT_TRUE(difference <= 1e-3) << difference;
}

// bf16 keeps 8 bits; rounding points differ between kernels, so the curves agree to about that.
TEST(GoldenTraining, Bfloat16Losses) {
  const Trajectory got = train(golden_options(DType::bf16));
  expect_relative(got.losses, golden_run("bf16").at("losses"), 1e-2, "loss");
}

}  // namespace
}  // namespace qshard::reference
