#pragma once

#include <cstdint>
#include <random>
#include <span>

namespace qshard {

struct SamplingOptions {
  double temperature = 0;  // 0: greedy
  std::int64_t top_k = 0;  // 0: all tokens
  double top_p = 1;        // the fewest most likely tokens that together have this probability; 1: all tokens
  std::uint64_t seed = 0;
};

/// The largest of the logits, the first of equal ones. Throws Error(check_failed) for NaN or infinite logits.
std::int32_t greedy_token(std::span<const float> logits);

/// Throws that error.
[[noreturn]] void fail_not_finite_logits();

/// Chooses the next token from logits: the greedy one, or one drawn from softmax(logits / temperature) over the top_k
/// largest, of which top_p then keeps a token if those more likely than it have less than top_p of the probability; in
/// double. Of equal logits the smaller token comes first. The same seed and logits give the same tokens.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options) : options_(options), generator_(options.seed) {}

  /// Throws Error(check_failed) for NaN or infinite logits.
  std::int32_t next(std::span<const float> logits);

 private:
  SamplingOptions options_;
  std::mt19937_64 generator_;
};

}  // namespace qshard
