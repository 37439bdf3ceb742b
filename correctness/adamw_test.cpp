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

TEST(ClipFactor, ScalesDownOnly) {
  EXPECT_EQ(clip_factor(0.1, 0.3), 1.0);
  EXPECT_NEAR(clip_factor(3.0, 0.3), 0.1, 1e-6);
  EXPECT_EQ(clip_factor(1e9, 0), 1.0);
}

}  // namespace
}  // namespace qshard::reference
