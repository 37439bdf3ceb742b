#include "reference/llama_layer.h"

#include "correctness/small_llama.h"

namespace qshard::reference {
namespace {

const char* const kParts[] = {"attention_input",  "query_projected", "key_projected", "query", "key", "value",
                              "attention_output", "mlp_residual",    "mlp_input",     "gate",  "up"};

template <typename T>
std::vector<const Matrix<T>*> parts(const LayerActivations<T>& kept) {
  return {&kept.attention_input,  &kept.query_projected, &kept.key_projected, &kept.query, &kept.key, &kept.value,
          &kept.attention_output, &kept.mlp_residual,    &kept.mlp_input,     &kept.gate,  &kept.up};
}

TEST(LlamaLayer, GradientsEqualCentralDifferences) {
  for (const auto& [probability, every_flag] : {std::pair{0.0, false}, std::pair{0.3, false}, std::pair{0.3, true}}) {
    SCOPED_TRACE(testing::Message() << probability << (every_flag ? ", every flag" : ""));
    SmallLlama<double> model(DType::f32, probability, every_flag);
    LayerWeights<double>& weights = model.layers[1];
    Matrix<double> x = random_matrix<double>(model.batch.tokens(), 16, 5);
    const Matrix<double> dy = random_matrix<double>(x.rows(), x.cols(), 6);
    const LayerContext<double> context = model.layer_context(1);
    const auto f = [&] { return layer_forward<double>(context, weights, x, nullptr).cwiseProduct(dy).sum(); };

    LayerActivations<double> kept;
    layer_forward(context, weights, x, &kept);
    auto gradients = SmallLlama<double>::zero_gradients(weights);
    const Matrix<double> dx = layer_backward(context, weights, x, kept, dy, gradients);
    expect_gradient(f, x, dx, "x");
    for (std::size_t i = 0; i < kProjections; ++i) {
      SCOPED_TRACE(module_name(static_cast<Projection>(i)));
      auto& lora = weights.projections[i].lora;
      if (!lora) {
        EXPECT_EQ(gradients[i].a.size() + gradients[i].b.size(), 0);
        continue;
      }
      expect_gradient(f, lora->a, gradients[i].a, "A");
      expect_gradient(f, lora->b, gradients[i].b, "B");
    }
  }
}

// A bias in every B, or DoRA, whose norms are constants in the backward pass: of A and B see dora_test.
TEST(LlamaLayer, GradientsOfBiasesAndMagnitudesEqualCentralDifferences) {
  for (const bool dora : {false, true}) {
    SCOPED_TRACE(dora ? "DoRA" : "biases");
    SmallLlama<double> model(DType::f32, 0.3, true);
    LayerWeights<double>& weights = model.layers[1];
    std::array<Matrix<double>, kProjections> values;  // biases or magnitudes
    const auto set = [&] {
      for (std::size_t i = 0; i < kProjections; ++i) {
        auto& lora = weights.projections[i].lora;
        if (lora) (dora ? lora->magnitude : lora->bias) = values[i];
      }
    };
    for (std::size_t i = 0; i < kProjections; ++i) {
      const auto& lora = weights.projections[i].lora;
      if (!lora) continue;
      values[i] = random_matrix<double>(lora->b.rows(), 1, 50 + i);
      if (dora) values[i].array() += 2;
    }
    set();
    Matrix<double> x = random_matrix<double>(model.batch.tokens(), 16, 5);
    const Matrix<double> dy = random_matrix<double>(x.rows(), x.cols(), 6);
    const LayerContext<double> context = model.layer_context(1);
    const auto f = [&] {
      set();
      return layer_forward<double>(context, weights, x, nullptr).cwiseProduct(dy).sum();
    };
    LayerActivations<double> kept;
    layer_forward(context, weights, x, &kept);
    auto gradients = SmallLlama<double>::zero_gradients(weights);
    const Matrix<double> dx = layer_backward(context, weights, x, kept, dy, gradients);
    expect_gradient(f, x, dx, "x");
    for (std::size_t i = 0; i < kProjections; ++i) {
      if (!weights.projections[i].lora) continue;
      SCOPED_TRACE(module_name(static_cast<Projection>(i)));
      expect_gradient(f, values[i], dora ? gradients[i].magnitude : gradients[i].bias, "values");
    }
  }
}

TEST(LlamaLayer, TwoLayerModelsLoraGradientsEqualCentralDifferences) {
  SmallLlama<double> model(DType::f32, 0.2);
  const double scale = 1.0 / static_cast<double>(count_loss_tokens(model.batch));
  const auto gradients = model.gradients(scale);
  const auto f = [&] { return model.loss() * scale; };
  for (std::size_t layer = 0; layer < 2; ++layer) {
    for (std::size_t i = 0; i < kProjections; ++i) {
      SCOPED_TRACE(module_name(static_cast<Projection>(i)));
      auto& lora = model.layers[layer].projections[i].lora;
      if (!lora) continue;
      expect_gradient(f, lora->a, gradients[layer][i].a, "A");
      expect_gradient(f, lora->b, gradients[layer][i].b, "B");
    }
  }
}

// Each flag changes the layer's result; the window alone one of the layers only.
TEST(LlamaLayer, EveryFlagOfAFamilyCounts) {
  SmallLlama<double> model(DType::f32, 0, true);
  const double loss = model.loss();
  const auto changes = [&](const char* what, auto&& change, auto&& undo) {
    change();
    EXPECT_NE(model.loss(), loss) << what;
    undo();
    ASSERT_EQ(model.loss(), loss) << what;
  };
  changes(
      "window", [&] { model.config.sliding_window = 4; }, [&] { model.config.sliding_window = 3; });
  changes(
      "layers", [&] { model.config.layer_has_window = {}; },
      [&] {
        model.config.layer_has_window = {false, true};
      });
  for (Vector<double>* norm : {&model.layers[0].query_norm, &model.layers[1].key_norm}) {
    changes(
        "norm", [&] { (*norm)(2) *= 2; }, [&] { (*norm)(2) /= 2; });
  }
  for (std::size_t i = 0; i < kProjections; ++i) {
    // A softmax does not feel what k_proj's bias adds to every key alike, but norm and rotation come in between.
    Vector<double>& bias = model.layers[1].projections[i].bias;
    const double kept = bias(1);
    changes(
        "bias", [&] { bias(1) += 0.5; }, [&] { bias(1) = kept; });
  }
}

TEST(LlamaLayer, ZeroBGivesTheBaseModelAndNoGradientOfA) {
  SmallLlama<float> model(DType::f32, 0.1);
  for (auto& layer : model.layers) {
    for (auto& linear : layer.projections) {
      if (linear.lora) linear.lora->b.setZero();
    }
  }
  const double with_adapter = model.loss();
  const auto gradients = model.gradients(1);
  for (const auto& layer : gradients) {
    for (const auto& gradient : layer) {
      EXPECT_TRUE((gradient.a.array() == 0).all());
      EXPECT_TRUE(gradient.b.size() == 0 || (gradient.b.array() != 0).any());
    }
  }
  for (auto& layer : model.layers) {
    for (auto& linear : layer.projections) linear.lora.reset();
  }
  EXPECT_EQ(with_adapter, model.loss());
}

TEST(LlamaLayer, RunningAgainGivesTheSameBits) {
  for (const auto& [compute, every_flag] :
       {std::pair{DType::f32, false}, std::pair{DType::bf16, false}, std::pair{DType::f16, true}}) {
    const SmallLlama<float> model(compute, 0.1, every_flag);
    const Matrix<float> x = embed(model.ends, model.batch);
    LayerActivations<float> first, second;
    const Matrix<float> y = layer_forward(model.layer_context(0), model.layers[0], x, &first);
    expect_same_bits(y, layer_forward(model.layer_context(0), model.layers[0], x, &second), "y");
    expect_same_bits(y, layer_forward<float>(model.layer_context(0), model.layers[0], x, nullptr), "y, nothing kept");
    for (std::size_t i = 0; i < parts(first).size(); ++i) {
      expect_same_bits(*parts(first)[i], *parts(second)[i], kParts[i]);
    }
    const std::int64_t tokens = model.batch.tokens();
    const std::int64_t before_norms = every_flag ? 24 + 12 : 0;
    EXPECT_EQ(first.bytes(), 4 * tokens * (3 * 16 + 2 * 24 + 2 * 12 + 2 * 20 + before_norms));
  }
}

TEST(LlamaLayer, DoesNotDependOnTheNumberOfThreads) {
  SmallLlama<float> model(DType::f32, 0.1, true);
  model.batch = random_batch({150, 1, 130, 40}, SmallLlama<float>::kVocabulary, 8);
  model.rope = make_rope_table<float>(model.config, 150, DType::f32);
  const auto losses = with_thread_counts([&] { return model.loss(); });
  const auto gradients = with_thread_counts([&] { return model.gradients(0.01); });
  for (std::size_t run = 1; run < losses.size(); ++run) {
    EXPECT_EQ(losses[0], losses[run]);
    for (std::size_t layer = 0; layer < 2; ++layer) {
      for (std::size_t i = 0; i < kProjections; ++i) {
        expect_same_bits(gradients[0][layer][i].a, gradients[run][layer][i].a, "A");
        expect_same_bits(gradients[0][layer][i].b, gradients[run][layer][i].b, "B");
      }
    }
  }
}

// A layer of which some tokens are read gives them and their gradients as a layer of which all are read.
TEST(LlamaLayer, ComputesOnlyTheTokensThatAreRead) {
  for (const bool every_flag : {false, true}) {
    const SmallLlama<double> model(DType::f32, 0, every_flag);
    const LayerWeights<double>& weights = model.layers[1];
    const Matrix<double> x = random_matrix<double>(model.batch.tokens(), 16, 5);
    const std::vector<Eigen::Index> read{1, 2, x.rows() - 1};
    LayerContext<double> context = model.layer_context(1);
    LayerActivations<double> kept;
    const Matrix<double> y = layer_forward(context, weights, x, &kept);
    Matrix<double> dy = Matrix<double>::Zero(x.rows(), x.cols());
    dy(read, Eigen::all) = random_matrix<double>(3, x.cols(), 6);
    auto gradients = SmallLlama<double>::zero_gradients(weights);
    const Matrix<double> dx = layer_backward(context, weights, x, kept, dy, gradients);

    context.read = &read;
    LayerActivations<double> some_kept;
    const Matrix<double> some_y = layer_forward(context, weights, x, &some_kept);
    EXPECT_EQ(some_kept.gate.rows(), 3);
    Matrix<double> expected = Matrix<double>::Zero(y.rows(), y.cols());
    expected(read, Eigen::all) = y(read, Eigen::all);
    expect_near(expected, some_y, 1e-12, "y");
    Matrix<double> some_dy = Matrix<double>::Constant(x.rows(), x.cols(), std::numeric_limits<double>::quiet_NaN());
    some_dy(read, Eigen::all) = dy(read, Eigen::all);
    auto some_gradients = SmallLlama<double>::zero_gradients(weights);
    expect_near(dx, layer_backward(context, weights, x, some_kept, some_dy, some_gradients), 1e-12, "dx");
    for (std::size_t i = 0; i < kProjections; ++i) {
      expect_near(gradients[i].a, some_gradients[i].a, 1e-12, "A");
      expect_near(gradients[i].b, some_gradients[i].b, 1e-12, "B");
    }
  }
}

TEST(LlamaLayer, WithoutAnInputGradientTheAdaptersGetTheSame) {
  const SmallLlama<float> model(DType::f32, 0.2, true);
  const Matrix<float> x = embed(model.ends, model.batch);
  LayerContext<float> context = model.layer_context(0);
  LayerActivations<float> kept;
  layer_forward(context, model.layers[0], x, &kept);
  const Matrix<float> dy = random_matrix<float>(x.rows(), x.cols(), 6);
  std::array<LayerGradients<float>, 2> gradients;
  for (const bool needed : {true, false}) {
    context.needs_input_gradient = needed;
    gradients[needed] = SmallLlama<float>::zero_gradients(model.layers[0]);
    const Matrix<float> dx = layer_backward(context, model.layers[0], x, kept, dy, gradients[needed]);
    EXPECT_EQ(dx.size(), needed ? x.size() : 0);
  }
  for (std::size_t i = 0; i < kProjections; ++i) {
    expect_same_bits(gradients[1][i].a, gradients[0][i].a, "A");
    expect_same_bits(gradients[1][i].b, gradients[0][i].b, "B");
  }
}

TEST(LlamaLayer, EveryValueOfA16BitComputeDtypeIsRoundedToIt) {
  for (const DType compute : {DType::bf16, DType::f16}) {
    const SmallLlama<float> model(compute, 0.1, true), exact(DType::f32, 0.1, true);
    const Matrix<float> x = embed(model.ends, model.batch);
    LayerActivations<float> kept, exact_kept;
    const Matrix<float> y = layer_forward(model.layer_context(0), model.layers[0], x, &kept);
    const Matrix<float> exact_y = layer_forward(exact.layer_context(0), exact.layers[0], x, &exact_kept);
    auto gradients = SmallLlama<float>::zero_gradients(model.layers[0]);
    const Matrix<float> dx = layer_backward(model.layer_context(0), model.layers[0], x, kept, y, gradients);
    std::vector<const Matrix<float>*> all = parts(kept);
    all.push_back(&y);
    all.push_back(&dx);
    for (const Matrix<float>* part : all) {
      Matrix<float> rounded = *part;
      round_to(compute, rounded);
      expect_same_bits(rounded, *part, "rounded again");
    }
    EXPECT_NE(y, exact_y);
    // Some thirty roundings of 2^-9 (bf16), 2^-12 (f16) lie between x and y; not all point the same way.
    const double step = compute == DType::bf16 ? 0x1p-9 : 0x1p-12;
    expect_near(exact_y, y, 30 * step * exact_y.cwiseAbs().maxCoeff(), "y");
  }
}

}  // namespace
}  // namespace qshard::reference
