// A layer so large that its 4-bit products take the adapters and add to their outputs, against the same layer with the
// dequantized weights, whose adapters and additions are kernels of their own.
#include <cmath>
#include <string>

#include "correctness/gpu/literal_kernels.h"
#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/dequantize.h"
#include "optimized/llama_layer.h"
#include "optimized/quantize.h"

namespace qshard::test {
namespace {

constexpr DType kDType = DType::bf16;
constexpr std::int64_t kRank = 64;
constexpr int kBlocksize = 64;

ModelConfig config_of_layer(std::int64_t hidden) {
  ModelConfig config;
  config.hidden_size = hidden;
  config.intermediate_size = 2 * hidden;
  config.num_hidden_layers = 1;
  config.num_attention_heads = config.num_key_value_heads = hidden / 128;
  config.head_dim = 128;
  config.rms_norm_eps = 1e-5;
  return config;
}

DeviceBuffer random(std::int64_t elements, float deviation, std::uint64_t seed) {
  DeviceBuffer values(static_cast<std::size_t>(elements) * size_of(kDType));
  fill_normal(kDType, elements, seed, deviation, values.as<void>());
  return values;
}

/// What one forward and backward pass made.
struct Result {
  std::vector<float> y, dx;
  std::vector<std::vector<float>> gradients;  // of A and B of each projection
};

std::vector<float> floats_of(const DeviceBuffer& values) {
  const auto bytes = values.download<std::byte>();
  return to_floats({kDType, {std::ssize(bytes) / 2}, bytes});
}

struct Linear {
  LinearModule module;
  DeviceBuffer codes, absmax, dense, a, b;

  explicit Linear(const LinearModule& of, std::uint64_t seed)
      : module(of),
        codes(of.out * of.in / 2),
        absmax(of.out * of.in / kBlocksize * sizeof(float)),
        dense(random(of.out * of.in, 0.02F, seed)),
        a(random(kRank * of.in, 0.02F, seed + 1)),
        b(random(of.out * kRank, 0.1F, seed + 2)) {
    optimized::quantize(dense.as<void>(), kDType, of.out * of.in, QuantType::nf4, kBlocksize, codes.as<std::uint8_t>(),
                        absmax.as<float>(), nullptr);
    optimized::dequantize(quantized(), kDType, dense.as<void>(), nullptr);
  }

  [[nodiscard]] optimized::DeviceWeight4bit quantized() const {
    optimized::DeviceWeight4bit weight{QuantType::nf4, kBlocksize, module.out * module.in, codes.as<std::uint8_t>()};
    weight.absmax = absmax.as<float>();
    return weight;
  }
};

class LayerOnDevice {
 public:
  explicit LayerOnDevice(const std::vector<std::int64_t>& lengths, std::int64_t hidden = 2048)
      : config_(config_of_layer(hidden)),
        batch_(random_batch(lengths, 100, 3)),
        rows_(batch_),
        norm_(random(config_.hidden_size, 1.0F, 4)),
        cos_(std::vector<float>(batch_.tokens() * config_.head_dim / 2, 0.8F)),
        sin_(std::vector<float>(batch_.tokens() * config_.head_dim / 2, 0.6F)),
        x_(random(elements(), 1.0F, 5)),
        dy_(random(elements(), 1.0F, 6)) {
    std::uint64_t seed = 100;
    for (const LinearModule& module : layer_modules(config_)) linears_.emplace_back(module, seed += 10);
  }

  [[nodiscard]] std::int64_t tokens() const { return batch_.tokens(); }

  /// keep: the activations between the passes; otherwise they are made again.
  [[nodiscard]] Result run(bool in_4bit, bool keep = true) {
    const std::vector<DeviceBuffer> gradients = zeros();
    DeviceBuffer y(x_.bytes());
    DeviceBuffer dx(x_.bytes());
    dx.copy_from(dy_);
    optimized::Arena plan(nullptr, 0);
    pass({&plan}, in_4bit, keep, gradients, y, dx);
    const DeviceBuffer memory(static_cast<std::size_t>(plan.peak()));
    optimized::Arena arena(memory.as<std::byte>(), plan.peak());
    pass({&arena, &matmul_, &linear4bit_, nullptr}, in_4bit, keep, gradients, y, dx);
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
    Result result{floats_of(y), floats_of(dx), {}};
    for (const DeviceBuffer& gradient : gradients) result.gradients.push_back(gradient.download<float>());
    return result;
  }

 private:
  [[nodiscard]] std::int64_t elements() const { return batch_.tokens() * config_.hidden_size; }

  /// Of A and B of each projection.
  [[nodiscard]] std::vector<DeviceBuffer> zeros() const {
    std::vector<DeviceBuffer> gradients;
    for (const Linear& linear : linears_) {
      for (const std::int64_t features : {linear.module.in, linear.module.out}) {
        gradients.emplace_back(static_cast<std::size_t>(features * kRank) * sizeof(float)).fill(0);
      }
    }
    return gradients;
  }

  void pass(const optimized::StepResources& resources, bool in_4bit, bool keep,
            const std::vector<DeviceBuffer>& gradients, const DeviceBuffer& y, const DeviceBuffer& dx) const {
    optimized::LayerWeights weights{norm_.as<void>(), norm_.as<void>(), nullptr, nullptr, {}};
    for (std::size_t i = 0; i < kProjections; ++i) {
      const Linear& linear = linears_[i];
      const optimized::FrozenWeight weight{linear.module.out, linear.module.in,   kDType,
                                           in_4bit,           linear.quantized(), linear.dense.as<void>()};
      weights.projections[i] = {weight,
                                nullptr,
                                {kRank, 0.5, linear.a.as<void>(), linear.b.as<void>(), gradients[2 * i].as<float>(),
                                 gradients[2 * i + 1].as<float>()}};
    }
    const optimized::TokenRows rows = rows_.view();
    const optimized::LayerContext context{&config_, &rows, cos_.as<float>(), sin_.as<float>(), kDType, 0.3, 11, 5, 0};
    optimized::LayerActivations activations;
    optimized::layer_forward(resources, context, weights, x_.as<void>(), y.as<void>(), keep, activations);
    if (!keep) {
      activations.give_back();
      optimized::layer_activations(resources, context, weights, x_.as<void>(), activations);
    }
    optimized::layer_backward(resources, context, weights, x_.as<void>(), true, dx.as<void>(), activations);
  }

  ModelConfig config_;
  TokenBatch batch_;
  DeviceRows rows_;
  DeviceBuffer norm_, cos_, sin_, x_, dy_;
  std::vector<Linear> linears_;
  optimized::MatmulPlans matmul_;
  optimized::Linear4bitPlans linear4bit_;
};

/// The root of the mean square of the difference, over that of the expected values.
double relative_difference(const std::vector<float>& expected, const std::vector<float>& found) {
  double difference = 0;
  double square = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(found[i]) - expected[i], 2);
    square += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(difference / square);
}

class LlamaLayerGpu : public GpuTest {};

// A mask, a scale or a place of another projection would change some result by a tenth; the roundings of bf16 change
// them by less than a hundredth.
TEST_F(LlamaLayerGpu, FoldedAdaptersGiveWhatSeparateOnesDo) {
  if (!optimized::current_linear4bit_device().has_warpgroups) GTEST_SKIP() << "not run: adapters fold on Hopper GPUs";
  constexpr double kBound = 0.015;
  LayerOnDevice layer({1500, 547});
  optimized::MatmulPlans plans;
  const optimized::Linear4bitShape smallest{2048, 2048, kDType, QuantType::nf4, kBlocksize, false};
  ASSERT_STREQ(
      optimized::Linear4bitPlan(plans, smallest, layer.tokens(), optimized::Linear4bitDirection::forward, {}, true)
          .kernel_name(),
      "many_rows");
  const Result separate = layer.run(false);
  const Result folded = layer.run(true);
  EXPECT_LT(relative_difference(separate.y, folded.y), kBound) << "y";
  EXPECT_LT(relative_difference(separate.dx, folded.dx), kBound) << "dx";
  for (std::size_t i = 0; i < folded.gradients.size(); ++i) {
    SCOPED_TRACE(fmt::format("{} of {}", i % 2 == 0 ? "dA" : "dB", module_name(static_cast<Projection>(i / 2))));
    EXPECT_LT(relative_difference(separate.gradients[i], folded.gradients[i]), kBound);
  }
  const Result again = layer.run(true);
  EXPECT_EQ(differing(folded.y, again.y), 0U) << "a second run gave other bits";
  EXPECT_EQ(differing(folded.dx, again.dx), 0U) << "a second run gave other bits";
  EXPECT_EQ(folded.gradients, again.gradients);
}

void expect_same_bits_kept_or_made_again(LayerOnDevice layer) {
  for (const bool in_4bit : {false, true}) {
    const Result kept = layer.run(in_4bit, true);
    const Result made_again = layer.run(in_4bit, false);
    EXPECT_EQ(differing(kept.y, made_again.y), 0U);
    EXPECT_EQ(differing(kept.dx, made_again.dx), 0U);
    EXPECT_EQ(kept.gradients, made_again.gradients);
  }
}

// More tokens than a tile of the feed-forward half: what is kept is cut like what is made again.
TEST_F(LlamaLayerGpu, TilesGiveTheSameBitsKeptOrMadeAgain) {
  expect_same_bits_kept_or_made_again(LayerOnDevice({3000, 1500, 547}));
}

// So small that compute-sanitizer's tools come to an end.
TEST_F(LlamaLayerGpu, FewTokensGiveTheSameBitsKeptOrMadeAgain) {
  expect_same_bits_kept_or_made_again(LayerOnDevice({70, 31}, 256));
}

// The first tile's tokens alone give the first tile's results: no row of a later tile is taken for one of the first.
TEST_F(LlamaLayerGpu, TilesDoNotSeeEachOther) {
  LayerOnDevice alone({4096});
  LayerOnDevice both({4096, 951});
  const Result first = alone.run(true, false);
  const Result all = both.run(true, false);
  const std::size_t shared = first.y.size();
  EXPECT_LT(relative_difference(first.y, {all.y.begin(), all.y.begin() + static_cast<std::ptrdiff_t>(shared)}), 0.01);
  EXPECT_LT(relative_difference(first.dx, {all.dx.begin(), all.dx.begin() + static_cast<std::ptrdiff_t>(shared)}),
            0.01);
}

}  // namespace
}  // namespace qshard::test
