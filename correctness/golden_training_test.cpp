// The golden training run of PyTorch + PEFT + bitsandbytes, repeated: 20 AdamW steps from adapter_init on the
// prequantized base.
#include "correctness/golden_training.h"

#include <cmath>

#include <gtest/gtest.h>

namespace qshard::reference {
namespace {

Trajectory train_llama(DType dtype) {
  return train(golden_llama(), "bnb4bit", golden_options(dtype), kGoldenLearningRate, 20);
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
  const Trajectory got = train_llama(DType::f32);
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
  const Trajectory got = train_llama(DType::bf16);
  expect_relative(got.losses, golden_run("bf16").at("losses"), 1e-2, "loss");
}

}  // namespace
}  // namespace qshard::reference
