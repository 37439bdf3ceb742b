// Generation on a GPU against the reference decoder, against whole rows on the same GPU, and against itself without
// CUDA graphs.
#include <cmath>
#include <random>

#include "core/launch/rank_link.h"
#include "core/training/sampling.h"
#include "correctness/golden_training.h"
#include "correctness/gpu/gpu_testing.h"
#include "correctness/random_prompts.h"
#include "optimized/sharded/sharded_engine.h"

namespace qshard::test {
namespace {

/// An engine on the GPU that only generates, and what it needs.
class Generator {
 public:
  Generator(const std::filesystem::path& model, const EngineOptions& options, const DecoderBound& bound,
            bool captures = true)
      : link_(RankLink::connect(RankInfo{}, {})), checkpoint_(HfCheckpoint::open(model)) {
    make(checkpoint_->config(), *optimized::make_checkpoint_source(*checkpoint_), options, bound, captures);
  }
  Generator(const ModelConfig& random, const EngineOptions& options, const DecoderBound& bound, bool captures = true)
      : link_(RankLink::connect(RankInfo{}, {})) {
    make(random, *optimized::make_random_source(0.05, 7), options, bound, captures);
  }

  [[nodiscard]] TrainingEngine& engine() { return *engine_; }
  [[nodiscard]] std::unique_ptr<Decoder> decoder() { return engine_->make_decoder(bound_.rows, bound_.tokens); }

 private:
  void make(const ModelConfig& config, const optimized::WeightSource& source, const EngineOptions& options,
            const DecoderBound& bound, bool captures) {
    bound_ = {bound.rows, bound.tokens, captures};
    engine_ = optimized::make_sharded_engine(config, source, options, {{}, {}, bound_}, link_);
  }

  RankLink link_;
  std::optional<HfCheckpoint> checkpoint_;
  DecoderBound bound_;
  std::unique_ptr<TrainingEngine> engine_;
};

/// An adapter of these names and shapes that changes the model.
NamedTensors random_adapter(const NamedTensors& like, double deviation) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0.0F, static_cast<float>(deviation));
  NamedTensors adapter;
  for (const auto& [name, tensor] : like) {
    std::vector<float> values(static_cast<std::size_t>(element_count(tensor.shape())));
    for (float& value : values) value = normal(random);
    adapter[name] = from_floats(values, DType::f32, tensor.shape());
  }
  return adapter;
}

/// The largest difference of two rows' logits over the largest logit.
double relative_difference(std::span<const float> got, std::span<const float> wanted) {
  double difference = 0;
  double largest = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    difference = std::max(difference, std::abs(static_cast<double>(got[i]) - wanted[i]));
    largest = std::max(largest, std::abs(static_cast<double>(wanted[i])));
  }
  return difference / largest;
}

class GoldenDecoderGpu : public GpuTest, public testing::WithParamInterface<const char*> {
 protected:
  static constexpr std::int64_t kSteps = 14;

  [[nodiscard]] static std::filesystem::path model() {
    const auto golden = std::filesystem::path(QSHARD_GOLDEN_DIR);
    return GetParam() == std::string("llama") ? golden / "llama" / "bnb4bit"
                                              : golden / "families" / GetParam() / "base";
  }

  /// Feeds both decoders the reference's greedy tokens; one row ends on the way. All logits within `bound` of the
  /// reference's, relative to the row's largest; with `same_tokens` the greedy tokens are the same.
  static void compare(DType dtype, double bound, bool same_tokens) {
    const EngineOptions options = golden_options(dtype);
    const auto reference = reference::make_sharded_engine(HfCheckpoint::open(model()), options);
    const HfCheckpoint checkpoint = HfCheckpoint::open(model());
    // A dynamic rotary embedding ends at the length that the model was trained for.
    const bool dynamic = checkpoint.config().rope.type == RopeType::dynamic;
    const std::int64_t longest = dynamic ? checkpoint.config().rope.original_max_position_embeddings - kSteps : 40;
    Generator generator(model(), options, {4, longest + kSteps});
    const NamedTensors adapter = random_adapter(reference->adapter(), 0.1);
    reference->load_adapter(adapter);
    generator.engine().load_adapter(adapter);
    const auto wanted_from = reference->make_decoder(4, longest + kSteps);
    const auto got_from = generator.decoder();
    const Prompts prompts = random_prompts({3, longest, 1, 17}, checkpoint.config().vocab_size, 3);
    TokenLogits wanted = wanted_from->start(prompts);
    TokenLogits got = got_from->start(prompts);
    double largest = 0;
    for (std::int64_t step = 0; step < kSteps; ++step) {
      Tokens tokens;
      for (std::int64_t row = 0; row < 4; ++row) {
        const bool ended = row == 1 && step > 6;
        if (ended) {
          for (const float logit : got.row(row)) ASSERT_EQ(logit, 0.0F);
        } else {
          const double difference = relative_difference(got.row(row), wanted.row(row));
          largest = std::max(largest, difference);
          EXPECT_LE(difference, bound) << "row " << row << ", step " << step;
        }
        tokens.push_back(greedy_token(wanted.row(row)));
        if (same_tokens && !ended) {
          EXPECT_EQ(greedy_token(got.row(row)), tokens.back()) << "row " << row << ", step " << step;
        }
        if (row == 1 && step == 6) tokens.back() = Decoder::kEndedRow;
      }
      wanted = wanted_from->next(tokens);
      got = got_from->next(tokens);
    }
    std::printf("  %s, %s: largest difference %.2e of the largest logit\n", GetParam(), torch_name(dtype).data(),
                largest);
  }
};

// The order of sums differs, and nothing else.
TEST_P(GoldenDecoderGpu, Float32) {
  compare(DType::f32, 1e-4, true);
}

// bf16 keeps 8 bits: a few roundings of the last hidden state, which each layer feeds on.
TEST_P(GoldenDecoderGpu, Bfloat16) {
  // Some 20 roundings to 2^-8 lie between a token and its logits, of values as large as the largest logit.
  compare(DType::bf16, 20 * 0x1p-8, false);
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenDecoderGpu,
                         testing::Values("llama", "mistral_window", "qwen2", "qwen3", "llama_bias", "llama_llama3_rope",
                                         "llama_linear_rope", "llama_yarn_rope", "llama_dynamic_rope"),
                         [](const auto& of) { return std::string(of.param); });

class DecoderGpu : public GpuTest {
 protected:
  /// Wide enough for every kernel of few rows.
  static ModelConfig wide_model() {
    ModelConfig config;
    config.hidden_size = 1024;
    config.intermediate_size = 2816;
    config.num_hidden_layers = 3;
    config.num_attention_heads = 8;
    config.num_key_value_heads = 2;
    config.head_dim = 128;
    config.vocab_size = 4099;
    config.max_position_embeddings = 4096;
    config.rms_norm_eps = 1e-5;
    return config;
  }
  static EngineOptions wide_options(DType dtype) {
    EngineOptions options;
    options.dtype = options.compute_dtype = dtype;
    options.lora.r = 16;
    return options;
  }
};

// A row that grows token by token has the logits of the whole row: the kernels of few rows, and attention over caches,
// against those of whole batches.
TEST_F(DecoderGpu, GrowsLikeWholeRows) {
  for (const std::int64_t rows : {1, 2, 4, 5, 16, 33}) {
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
      if (dtype != DType::bf16 && rows != 4) continue;
      Generator generator(wide_model(), wide_options(dtype), {rows, 320});
      generator.engine().load_adapter(random_adapter(generator.engine().adapter(), 0.02));
      std::vector<std::int64_t> lengths;
      for (std::int64_t row = 0; row < rows; ++row) lengths.push_back(1 + row * 97 % 250);
      Prompts prompts = random_prompts(lengths, 4099, 5);
      const Prompts more = random_prompts(std::vector<std::int64_t>(static_cast<std::size_t>(rows), 70), 4099, 6);
      const auto growing = generator.decoder();
      growing->start(prompts);
      TokenLogits got;
      for (std::size_t step = 0; step < 70; ++step) {
        Tokens tokens;
        for (std::size_t row = 0; row < prompts.size(); ++row) {
          tokens.push_back(more[row][step]);
          prompts[row].push_back(more[row][step]);
        }
        got = growing->next(tokens);
      }
      const TokenLogits wanted = growing->start(prompts);
      double largest = 0;
      for (std::int64_t row = 0; row < rows; ++row) {
        largest = std::max(largest, relative_difference(got.row(row), wanted.row(row)));
      }
      std::printf("  %2ld rows, %s: largest difference %.2e of the largest logit\n", static_cast<long>(rows),
                  torch_name(dtype).data(), largest);
      EXPECT_LE(largest, dtype == DType::f32    ? 1e-4
                         : dtype == DType::bf16 ? 20 * 0x1p-8
                                                : 20 * 0x1p-11)
          << rows << " rows";
    }
  }
}

// A graph is the same kernels; a decoder that starts again, with fewer rows, captures anew.
TEST_F(DecoderGpu, SameBitsWithoutGraphs) {
  Generator with(wide_model(), wide_options(DType::bf16), {4, 64}, true);
  Generator without(wide_model(), wide_options(DType::bf16), {4, 64}, false);
  const NamedTensors adapter = random_adapter(with.engine().adapter(), 0.02);
  with.engine().load_adapter(adapter);
  without.engine().load_adapter(adapter);
  const auto captured = with.decoder();
  const auto plain = without.decoder();
  for (const std::vector<std::int64_t>& lengths : {std::vector<std::int64_t>{5, 30, 1, 12}, {9}, {2, 2, 2, 2}}) {
    const Prompts prompts = random_prompts(lengths, 4099, 8);
    TokenLogits a = captured->start(prompts);
    TokenLogits b = plain->start(prompts);
    for (int step = 0; step < 20; ++step) {
      ASSERT_EQ(differing(a.values, b.values), 0U) << lengths.size() << " rows, step " << step;
      Tokens tokens;
      for (std::size_t row = 0; row < lengths.size(); ++row) {
        tokens.push_back(greedy_token(a.row(static_cast<std::int64_t>(row))));
      }
      a = captured->next(tokens);
      b = plain->next(tokens);
    }
  }
}

TEST_F(DecoderGpu, GreedyTokensAreThoseOfTheLogits) {
  Generator generator(wide_model(), wide_options(DType::bf16), {3, 64});
  const auto by_logits = generator.decoder();
  const Prompts prompts = random_prompts({5, 30, 1}, 4099, 9);
  std::vector<Tokens> wanted;
  TokenLogits logits = by_logits->start(prompts);
  for (int step = 0; step < 10; ++step) {
    wanted.emplace_back();
    for (std::int64_t row = 0; row < 3; ++row) wanted.back().push_back(greedy_token(logits.row(row)));
    logits = by_logits->next(wanted.back());
  }
  Tokens got = by_logits->start_greedily(prompts);
  for (int step = 0; step < 10; ++step) {
    EXPECT_EQ(got, wanted[static_cast<std::size_t>(step)]) << "step " << step;
    got = by_logits->next_greedily(got);
  }
}

// Training and generation take turns in one arena.
TEST_F(DecoderGpu, BesideTraining) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(golden_llama() / "bnb4bit");
  const auto source = optimized::make_checkpoint_source(checkpoint);
  const std::vector<TokenBatch> batch = golden_batches(1);
  const auto losses = [&](bool generates) {
    const BatchBound bound{batch[0].tokens(), batch[0].rows(), longest_row(batch[0])};
    RankLink link = RankLink::connect(RankInfo{}, {});
    const auto engine = optimized::make_sharded_engine(checkpoint.config(), *source, golden_options(DType::bf16),
                                                       {bound, {}, {2, 32}}, link);
    std::vector<double> result;
    for (std::int64_t step = 1; step <= 3; ++step) {
      result.push_back(engine->train_step({batch}, 1e-3, step).loss);
      if (!generates) continue;
      const auto decoder = engine->make_decoder(2, 32);
      Tokens tokens = decoder->start_greedily(random_prompts({4, 9}, checkpoint.config().vocab_size, 2));
      for (int i = 0; i < 5; ++i) tokens = decoder->next_greedily(tokens);
    }
    return result;
  };
  EXPECT_EQ(losses(true), losses(false));
}

TEST_F(DecoderGpu, RefusesWhatDoesNotFit) {
  ModelConfig dynamic = wide_model();
  dynamic.rope.type = RopeType::dynamic;
  dynamic.rope.original_max_position_embeddings = 16;
  EXPECT_THROW(Generator(dynamic, wide_options(DType::bf16), {1, 17}), Error);
  Generator generator(wide_model(), wide_options(DType::bf16), {2, 16});
  EXPECT_THROW(generator.engine().make_decoder(3, 16), Error);
  EXPECT_THROW(generator.engine().make_decoder(2, 17), Error);
  const auto decoder = generator.decoder();
  EXPECT_THROW(decoder->start(random_prompts({1, 1, 1}, 4099, 1)), Error);
  EXPECT_THROW(decoder->start(random_prompts({17}, 4099, 1)), Error);
  EXPECT_THROW(decoder->start(Prompts{{}}), Error);
  EXPECT_THROW(decoder->start(Prompts{{4099}}), Error);
  decoder->start(random_prompts({15, 16}, 4099, 1));
  EXPECT_THROW(decoder->next(Tokens{0}), Error);
  EXPECT_THROW(decoder->next(Tokens{-2, Decoder::kEndedRow}), Error);
  EXPECT_THROW(decoder->next(Tokens{0, 0}), Error);  // row 1 is full
  decoder->next(Tokens{0, Decoder::kEndedRow});
  EXPECT_THROW(decoder->next(Tokens{0, Decoder::kEndedRow}), Error);
}

}  // namespace
}  // namespace qshard::test
