#include "reference/adamw.h"

#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "core/run/engine_options.h"
#include "core/tensor/float16.h"

namespace qshard::reference {
namespace {

// The update written in double, term by term as the paper has it.
struct Oracle {
  double p, m = 0, v = 0;
  void step(double g, const AdamWOptions& o, double lr, int t) {
    p -= lr * o.weight_decay * p;
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(o.beta1, t));
    const double v_hat = v / (1 - std::pow(o.beta2, t));
    p -= lr * m_hat / (std::sqrt(v_hat) + o.epsilon);
  }
};

// 50 steps; each rounds a handful of times at 2^-24 relative to values of order one, so 50 * 10 * 2^-24 = 3e-5 is
// ample.
TEST(AdamW, FollowsTheFormulaInDouble) {
  AdamWOptions options;
  options.weight_decay = 0.1;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  const std::size_t n = 257;
  std::vector<float> p(n), m(n, 0.0F), v(n, 0.0F), g(n);
  std::vector<Oracle> oracle;
  for (float& x : p) {
    x = normal(random);
    oracle.push_back({x});
  }
  for (int t = 1; t <= 50; ++t) {
    for (std::size_t i = 0; i < n; ++i) {
      g[i] = normal(random);
      oracle[i].step(g[i], options, 1e-2, t);
    }
    adamw_update(p, g, m, v, options, DType::f32, 1e-2, t);
  }
  for (std::size_t i = 0; i < n; ++i) {
    EXPECT_TRUE(std::abs(p[i] - oracle[i].p) <= 3e-5) << i << ": " << p[i] << " against " << oracle[i].p;
  }
}

TEST(AdamW, AShardsResultIsTheWholes) {
  std::vector<float> p{1, 2, 3, 4}, m(4, 0.1F), v(4, 0.2F);
  const std::vector<float> g{0.5F, -0.25F, 0.125F, 1.0F};
  std::vector<float> shard_p(p.begin() + 2, p.end()), shard_m(2, 0.1F), shard_v(2, 0.2F);
  adamw_update(p, g, m, v, {}, DType::f32, 1e-3, 3);
  adamw_update(shard_p, std::span(g).subspan(2), shard_m, shard_v, {}, DType::f32, 1e-3, 3);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(p[i + 2], shard_p[i]);
    EXPECT_EQ(v[i + 2], shard_v[i]);
  }
}

TEST(AdamW, SixteenBitStateIsRoundedWhenStored) {
  std::vector<float> p{0.1F}, m{0}, v{0};
  adamw_update(p, std::vector<float>{0.3F}, m, v, {}, DType::bf16, 1e-3, 1);
  for (const float x : {p[0], m[0], v[0]}) EXPECT_EQ(x, to_float(from_float<bfloat16>(x)));
}

// torch 2.15, AdamW(lr=1e-2, weight_decay=0.1, fused=True), three steps on these 4,000 bf16 parameters; from moments
// that were rounded first, 121 of them would differ, the first nine with a small index among them.
TEST(AdamW, SixteenBitParametersEqualTorchsFusedOnes) {
  constexpr std::int64_t kCount = 4000;
  const auto bf16 = [](float x) { return to_float(from_float<bfloat16>(x)); };
  std::vector<float> p(kCount), m(kCount, 0.0F), v(kCount, 0.0F), g(kCount);
  for (std::int64_t i = 0; i < kCount; ++i) p[i] = bf16(static_cast<float>(i * 2654435761 % 1009 - 504) / 512.0F);
  AdamWOptions options;
  options.weight_decay = 0.1;
  for (std::int64_t t = 1; t <= 3; ++t) {
    for (std::int64_t i = 0; i < kCount; ++i) {
      g[i] = bf16(static_cast<float>((i * 40503 + t * 7919) % 4093 - 2046) / 4096.0F);
    }
    adamw_update(p, g, m, v, options, DType::bf16, 1e-2, t);
  }
  const std::vector<std::pair<std::size_t, std::uint16_t>> recorded{
      {0, 0xBF81},    {3, 0x3F0C},    {22, 0xBDA0},   {52, 0xBE53},   {62, 0x3ED8},   {81, 0xBE54},   {129, 0xBF5A},
      {164, 0x3E5A},  {238, 0x3A3B},  {267, 0xBCB6},  {333, 0x3F4F},  {397, 0xBDA3},  {411, 0xBCA9},  {555, 0xB91C},
      {666, 0x3F1C},  {999, 0x3EB5},  {1332, 0x3E1C}, {1665, 0x3C2C}, {1998, 0xBE47}, {2331, 0xBEE7}, {2664, 0xBF1E},
      {2997, 0xBF4A}, {3330, 0x3F70}, {3663, 0x3F35}, {3996, 0x3F0C}};
  for (const auto& [i, bits] : recorded) EXPECT_EQ(from_float<bfloat16>(p[i]).bits, bits) << "parameter " << i;
}

TEST(ClipFactor, ScalesDownOnly) {
  EXPECT_EQ(clip_factor(0.1, 0.3), 1.0);
  EXPECT_NEAR(clip_factor(3.0, 0.3), 0.1, 1e-6);
  EXPECT_EQ(clip_factor(1e9, 0), 1.0);
}

}  // namespace
}  // namespace qshard::reference
