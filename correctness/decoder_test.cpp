// A decoder that keeps keys and values against whole rows.
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "core/training/sampling.h"
#include "correctness/expect_error.h"
#include "correctness/golden_llama.h"
#include "correctness/random_prompts.h"
#include "reference/sharded_engine.h"

namespace qshard::reference {
namespace {

void expect_close(std::span<const float> got, std::span<const float> wanted, double bound, const std::string& where) {
  double difference = 0;
  double largest = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(got[i]) - wanted[i]));
    largest = std::max(largest, std::abs(static_cast<double>(wanted[i])));
  }
  EXPECT_GT(largest, 0) << where;
  EXPECT_LE(difference, bound * largest) << where;
}

std::filesystem::path model_of(const std::string& name) {
  const auto golden = std::filesystem::path(QSHARD_GOLDEN_DIR);
  return name == "llama" ? golden / "llama" / "bnb4bit" : golden / "families" / name / "base";
}

class DecoderTest : public testing::TestWithParam<const char*> {};

/// Grows rows of several lengths, one of which ends on the way, and compares each token's logits with those of the
/// whole rows so far, which another decoder takes as prompts.
void grow(const std::string& name, DType dtype, double bound, const std::vector<std::int64_t>& lengths, int steps) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(model_of(name));
  const auto engine = make_sharded_engine(checkpoint, golden_options(dtype));
  NamedTensors adapter = engine->adapter();
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0F, 0.1F);
  for (auto& [tensor_name, tensor] : adapter) {
    std::vector<float> values(static_cast<std::size_t>(element_count(tensor.shape())));
    for (float& value : values) value = normal(random);
    tensor = from_floats(values, DType::f32, tensor.shape());
  }
  engine->load_adapter(adapter);
  const auto growing = engine->make_decoder(3, 200);
  const auto whole = engine->make_decoder(3, 200);
  Prompts rows = random_prompts(lengths, checkpoint.config().vocab_size, 3);
  const Prompts more = random_prompts({steps, steps, steps}, checkpoint.config().vocab_size, 4);
  growing->start(rows);
  for (int step = 0; step < steps; ++step) {
    const bool ended = step >= steps / 2;
    Tokens tokens;
    for (std::size_t row = 0; row < rows.size(); ++row) {
      tokens.push_back(more[row][static_cast<std::size_t>(step)]);
      rows[row].push_back(tokens.back());
    }
    if (ended) tokens[0] = Decoder::kEndedRow;
    const TokenLogits got = growing->next(tokens);
    Prompts running = rows;
    if (ended) running.erase(running.begin());
    const TokenLogits wanted = whole->start(running);
    for (std::int64_t row = ended ? 1 : 0; row < 3; ++row) {
      expect_close(got.row(row), wanted.row(row - (ended ? 1 : 0)), bound,
                   name + ", row " + std::to_string(row) + ", step " + std::to_string(step));
    }
    if (!ended) continue;
    for (const float logit : got.row(0)) ASSERT_EQ(logit, 0.0F);
  }
}

TEST_P(DecoderTest, GrowsLikeWholeRows) {
  grow(GetParam(), DType::f32, 2e-5, {30, 1, 9}, 12);
}

TEST_P(DecoderTest, GrowsLikeWholeRowsInBfloat16) {
  grow(GetParam(), DType::bf16, 4e-2, {30, 1, 9}, 6);
}

INSTANTIATE_TEST_SUITE_P(Cases, DecoderTest,
                         testing::Values("llama", "mistral_window", "qwen2", "qwen3", "llama_bias", "llama_llama3_rope",
                                         "llama_linear_rope", "llama_yarn_rope", "llama_dynamic_rope"),
                         [](const auto& of) { return std::string(of.param); });

// The longest row, whose length gives the angles, ends half way, below and beyond the original length.
TEST(DecoderDynamicRopeTest, BeyondTheOriginalLength) {
  const ModelConfig config = HfCheckpoint::open(model_of("llama_dynamic_rope")).config();
  const std::int64_t original = config.rope.original_max_position_embeddings;
  ASSERT_LT(original, 150);
  grow("llama_dynamic_rope", DType::f32, 2e-5, {original - 2, 1, 9}, 12);
}

TEST(DecoderGreedyTest, ChoosesTheLargestLogit) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(model_of("llama"));
  const auto engine = make_sharded_engine(checkpoint, golden_options(DType::f32));
  const auto decoder = engine->make_decoder(2, 16);
  const Prompts prompts = random_prompts({4, 2}, checkpoint.config().vocab_size, 6);
  const TokenLogits first = decoder->start(prompts);
  const Tokens tokens{greedy_token(first.row(0)), greedy_token(first.row(1))};
  const TokenLogits second = decoder->next(tokens);
  EXPECT_EQ(decoder->start_greedily(prompts), tokens);
  EXPECT_EQ(decoder->next_greedily(tokens), (Tokens{greedy_token(second.row(0)), greedy_token(second.row(1))}));
}

TEST(DecoderRefusalTest, NamesWhatIsWrong) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(model_of("llama"));
  const auto vocab = static_cast<std::int32_t>(checkpoint.config().vocab_size);
  const auto engine = make_sharded_engine(checkpoint, golden_options(DType::f32));
  const auto decoder = engine->make_decoder(2, 8);
  expect_bad_input({"3 prompts", "2 rows"}, [&] { decoder->start(Prompts{{1}, {1}, {1}}); });
  expect_bad_input({"9 tokens", "8"}, [&] { decoder->start(Prompts{Tokens(9, 1)}); });
  expect_bad_input({"prompt"}, [&] { decoder->start(Prompts{{}}); });
  expect_bad_input({std::to_string(vocab)}, [&] { decoder->start(Prompts{{vocab}}); });
  decoder->start(Prompts{Tokens(8, 1), {1}});
  expect_bad_input({"1 tokens", "2 rows"}, [&] { decoder->next(Tokens{1}); });
  expect_bad_input({"9 tokens", "8"}, [&] { decoder->next(Tokens{1, 1}); });
  expect_bad_input({std::to_string(vocab)}, [&] { decoder->next(Tokens{Decoder::kEndedRow, vocab}); });
  decoder->next(Tokens{Decoder::kEndedRow, 1});
}

}  // namespace
}  // namespace qshard::reference
