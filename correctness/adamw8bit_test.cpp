#include "reference/adamw8bit.h"

#include <cmath>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "core/tensor/codebook.h"
#include "core/tensor/float16.h"

namespace qshard::reference {
namespace {

constexpr std::size_t kBlock = kMomentBlocksize;

struct State {
  explicit State(std::vector<float> parameter)
      : p(std::move(parameter)),
        m_codes(p.size()),
        v_codes(p.size()),
        m_absmax((p.size() + kBlock - 1) / kBlock),
        v_absmax(m_absmax.size()) {}

  void step(const std::vector<float>& g, const AdamWOptions& options, DType dtype, double lr, std::int64_t t) {
    adamw8bit_update(p, g, {m_codes, m_absmax}, {v_codes, v_absmax}, options, dtype, lr, t);
  }
  [[nodiscard]] float m(std::size_t i) const { return dynamic_map()[m_codes[i]] * m_absmax[i / kBlock]; }
  [[nodiscard]] float v(std::size_t i) const { return unsigned_dynamic_map()[v_codes[i]] * v_absmax[i / kBlock]; }

  std::vector<float> p;
  std::vector<std::uint8_t> m_codes, v_codes;
  std::vector<float> m_absmax, v_absmax;
};

std::vector<float> normal(std::size_t count, unsigned seed, float deviation = 1.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> of(0.0F, deviation);
  std::vector<float> values(count);
  for (float& x : values) x = of(random);
  return values;
}

// The index of the entry nearest to x, by looking at all of them.
int nearest(double x, const std::array<float, 256>& map) {
  int best = 0;
  for (int i = 1; i < 256; ++i) {
    if (std::abs(map[i] - x) < std::abs(map[best] - x)) best = i;
  }
  return best;
}

// One step, written in double from the moments that the state holds. The update rounds six times at 2^-24, to a p of
// order one twice more; moments are compared as they are before they get codes, through absmax and the nearest code.
TEST(AdamW8bit, FollowsTheFormulaInDouble) {
  AdamWOptions options{0.9, 0.99, 1e-6, 0.1};
  const double beta1 = 0.9F;
  const double beta2 = 0.99F;
  State state(normal(700, 1));
  for (int t = 1; t <= 20; ++t) {
    const State before = state;
    const std::vector<float> g = normal(700, 100 + t, t % 4 == 0 ? 1e-3F : 1.0F);
    state.step(g, options, DType::f32, 1e-2, t);
    std::vector<double> m(700), v(700);
    std::vector<double> m_absmax(3, 0.0), v_absmax(3, 0.0);
    for (std::size_t i = 0; i < 700; ++i) {
      m[i] = beta1 * before.m(i) + (1 - beta1) * g[i];
      v[i] = beta2 * before.v(i) + (1 - beta2) * g[i] * g[i];
      m_absmax[i / kBlock] = std::max(m_absmax[i / kBlock], std::abs(m[i]));
      v_absmax[i / kBlock] = std::max(v_absmax[i / kBlock], v[i]);
      const double m_hat = m[i] / (1 - std::pow(beta1, t));
      const double v_hat = v[i] / (1 - std::pow(beta2, t));
      const double p = (before.p[i] - 1e-2 * m_hat / (std::sqrt(v_hat) + 1e-6)) * (1 - 1e-2 * 0.1);
      EXPECT_TRUE(std::abs(state.p[i] - p) <= 1e-6) << t << ", " << i << ": " << state.p[i] << " against " << p;
    }
    for (std::size_t block = 0; block < 3; ++block) {
      EXPECT_TRUE(std::abs(state.m_absmax[block] / m_absmax[block] - 1) <= 1e-6) << t << ", " << block;
      EXPECT_TRUE(std::abs(state.v_absmax[block] / v_absmax[block] - 1) <= 1e-6) << t << ", " << block;
    }
    int moved = 0;
    for (std::size_t i = 0; i < 700; ++i) {
      const int m_code = nearest(m[i] / m_absmax[i / kBlock], dynamic_map());
      const int v_code = nearest(v[i] / v_absmax[i / kBlock], unsigned_dynamic_map());
      EXPECT_TRUE(std::abs(state.m_codes[i] - m_code) <= 1) << t << ", " << i;
      EXPECT_TRUE(std::abs(state.v_codes[i] - v_code) <= 1) << t << ", " << i;
      EXPECT_EQ(std::signbit(dynamic_map()[state.m_codes[i]]), m[i] < 0) << t << ", " << i;
      moved += (state.m_codes[i] != m_code ? 1 : 0) + (state.v_codes[i] != v_code ? 1 : 0);
    }
    EXPECT_LE(moved, 5) << "codes that are not the nearest, of 1400: only rounded ties and signs may be";
  }
}

struct Recorded {
  std::size_t i;
  int m_code, v_code;
  float p;
};

// bitsandbytes 0.50.2's AdamW8bit(lr=1e-2, weight_decay=0) on its CPU backend with torch 2.15, three steps on these
// 5,000 float parameters. Of all 5,000 ten codes of the mean and twenty of the mean square differ there, by up to 3,
// and no code of these thirteen.
TEST(AdamW8bit, EqualsBitsandbytesOnTheCpu) {
  constexpr std::int64_t kCount = 5000;
  State state(std::vector<float>(kCount, 0.0F));
  for (std::int64_t i = 0; i < kCount; ++i) state.p[i] = static_cast<float>(i * 2654435761 % 1009 - 504) / 512.0F;
  std::vector<float> g(kCount);
  for (std::int64_t t = 1; t <= 3; ++t) {
    for (std::int64_t i = 0; i < kCount; ++i) g[i] = static_cast<float>((i * 40503 + t * 7919) % 4093 - 2046) / 4096.0F;
    state.step(g, {}, DType::f32, 1e-2, t);
  }
  const std::vector<Recorded> recorded{
      {0, 242, 208, -0x1.039596p+0F},    {389, 35, 145, -0x1.dbc85cp-1F},   {778, 216, 143, -0x1.ecf362p-1F},
      {1167, 8, 211, -0x1.c1a1b8p-1F},   {1556, 183, 70, -0x1.d04dd6p-1F},  {1945, 209, 246, -0x1.b3dca2p-1F},
      {2334, 50, 117, -0x1.9af902p-1F},  {2723, 231, 173, -0x1.ac30e4p-1F}, {3112, 23, 171, -0x1.80a36cp-1F},
      {3501, 204, 122, -0x1.91abecp-1F}, {3890, 56, 246, -0x1.6ab51p-1F},   {4279, 67, 69, -0x1.6a66fcp-1F},
      {4668, 244, 214, -0x1.6b2f7ep-1F}};
  for (const Recorded& of : recorded) {
    EXPECT_EQ(state.m_codes[of.i], of.m_code) << of.i;
    EXPECT_EQ(state.v_codes[of.i], of.v_code) << of.i;
    // Three updates of 0.01 or less, whose factors bitsandbytes makes from betas that are not rounded: 5e-5 of v's.
    EXPECT_NEAR(state.p[of.i], of.p, 2e-6) << of.i;
  }
  for (const auto& [m_absmax, v_absmax, block] :
       {std::tuple(0x1.e76a84p-4F, 0x1.4731fp-11F, 0), std::tuple(0x1.e59ce4p-4F, 0x1.484112p-11F, 1)}) {
    EXPECT_NEAR(state.m_absmax[block] / m_absmax, 1.0, 1e-6);
    EXPECT_NEAR(state.v_absmax[block] / v_absmax, 1.0, 1e-4);  // 1 - beta2 is 4.7e-5 off in float
  }
}

TEST(AdamW8bit, AShardThatBeginsAtABlockGivesTheWholesResult) {
  State whole(normal(1000, 1));
  State first(std::vector<float>(whole.p.begin(), whole.p.begin() + 512));
  State second(std::vector<float>(whole.p.begin() + 512, whole.p.end()));
  for (int t = 1; t <= 5; ++t) {
    const std::vector<float> g = normal(1000, 10 + t);
    whole.step(g, {}, DType::bf16, 1e-3, t);
    first.step({g.begin(), g.begin() + 512}, {}, DType::bf16, 1e-3, t);
    second.step({g.begin() + 512, g.end()}, {}, DType::bf16, 1e-3, t);
  }
  first.p.insert(first.p.end(), second.p.begin(), second.p.end());
  first.m_codes.insert(first.m_codes.end(), second.m_codes.begin(), second.m_codes.end());
  first.v_absmax.insert(first.v_absmax.end(), second.v_absmax.begin(), second.v_absmax.end());
  EXPECT_EQ(first.p, whole.p);
  EXPECT_EQ(first.m_codes, whole.m_codes);
  EXPECT_EQ(first.v_absmax, whole.v_absmax);
}

// A value so small that its code would be 0's (which has a plus sign) or its neighbour's with the other sign.
TEST(AdamW8bit, CodesKeepTheSignOfTheMean) {
  for (const float tiny : {1e-9F, -1e-9F, 0.0F}) {
    State state({0.0F, 0.0F});
    state.step({1.0F, tiny}, {}, DType::f32, 1e-3, 1);
    EXPECT_EQ(state.m_codes[0], 255);
    EXPECT_EQ(state.m_codes[1], tiny < 0 ? 126 : 127) << tiny;
    EXPECT_EQ(state.v_codes[1], 0);
  }
}

// Rounded once it would be 0.5546875, with decay before the update 0.490234375.
TEST(AdamW8bit, DecayComesAfterTheUpdateAndRoundsAgain) {
  AdamWOptions options;
  options.weight_decay = 0.7;
  State state({1.0F});
  state.step({1.0F}, options, DType::bf16, 0.3, 1);  // the update is the learning rate: m / sqrt(v) is 1
  EXPECT_EQ(state.p[0], 0.55078125F);
}

TEST(AdamW8bit, NotFiniteGradientClearsTheMomentsAndLeavesTheParameter) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    State state({1.0F, 2.0F});
    state.step({1.0F, 1.0F}, {}, DType::f32, 1e-3, 1);
    const float before = state.p[1];
    state.step({1.0F, bad}, {}, DType::f32, 1e-3, 2);
    EXPECT_EQ(state.p[1], before);
    EXPECT_EQ(state.m(1), 0.0F);
    EXPECT_EQ(state.v(1), 0.0F);
    EXPECT_NE(state.m(0), 0.0F);
  }
}

TEST(AdamW8bit, ZeroGradientsChangeNothing) {
  State state(normal(300, 3));
  const std::vector<float> before = state.p;
  for (int t = 1; t <= 3; ++t) state.step(std::vector<float>(300, 0.0F), {}, DType::f32, 1e-3, t);
  EXPECT_EQ(state.p, before);
  for (std::size_t i = 0; i < 300; ++i) EXPECT_EQ(state.m(i), 0.0F);
}

}  // namespace
}  // namespace qshard::reference
