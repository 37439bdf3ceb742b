#include "core/training/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/base/error.h"

namespace qshard {

namespace {

void check_finite(std::span<const float> logits) {
  if (std::ranges::any_of(logits, [](float logit) { return !std::isfinite(logit); })) fail_not_finite_logits();
}

/// Leaves the first of the weights, which fall, that together have `top_p` of their sum.
void keep_top_p(std::vector<double>& weights, double top_p) {
  if (top_p >= 1) return;
  const double wanted = top_p * std::accumulate(weights.begin(), weights.end(), 0.0);
  double before = 0;
  std::size_t kept = 0;
  while (kept < weights.size() && (kept == 0 || before < wanted)) before += weights[kept++];
  weights.resize(kept);
}

}  // namespace

void fail_not_finite_logits() {
  fail(ExitCode::check_failed, "the model's logits are not finite: its weights or adapter are damaged");
}

std::int32_t greedy_token(std::span<const float> logits) {
  check_finite(logits);
  return static_cast<std::int32_t>(std::ranges::max_element(logits) - logits.begin());
}

std::int32_t Sampler::next(std::span<const float> logits) {
  if (options_.temperature == 0) return greedy_token(logits);
  check_finite(logits);
  std::vector<std::int32_t> tokens(logits.size());
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto logit_of = [&](std::int32_t token) { return logits[static_cast<std::size_t>(token)]; };
  std::ranges::stable_sort(tokens, std::greater<>(), logit_of);
  if (options_.top_k > 0 && options_.top_k < static_cast<std::int64_t>(tokens.size())) {
    tokens.resize(static_cast<std::size_t>(options_.top_k));
  }

  std::vector<double> weights;
  const double largest = logit_of(tokens.front());
  for (const std::int32_t token : tokens) {
    weights.push_back(std::exp((static_cast<double>(logit_of(token)) - largest) / options_.temperature));
  }
  keep_top_p(weights, options_.top_p);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double left = static_cast<double>(generator_() >> 11U) * 0x1p-53 * total;  // uniform in [0, total)
  for (std::size_t i = 0; i + 1 < weights.size(); ++i) {
    left -= weights[i];
    if (left < 0) return tokens[i];
  }
  return tokens[weights.size() - 1];
}

}  // namespace qshard
