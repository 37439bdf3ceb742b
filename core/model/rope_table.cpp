#include "core/model/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace qshard {
namespace {

float scale_llama3(float frequency, const RopeConfig& rope) {
  const auto factor = static_cast<float>(rope.factor);
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto high = static_cast<float>(rope.high_freq_factor);
  const auto length = static_cast<float>(rope.original_max_position_embeddings);
  const float wavelength = 2 * std::numbers::pi_v<float> / frequency;
  if (wavelength < length / high) return frequency;
  if (wavelength > length / low) return frequency / factor;
  const float smooth = (length / wavelength - low) / (high - low);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

double dynamic_theta(const RopeConfig& rope, std::int64_t head_dim, std::int64_t length) {
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  const double stretch = rope.factor * std::max(static_cast<double>(length), original) / original - (rope.factor - 1);
  const auto d = static_cast<double>(head_dim);
  return rope.theta * std::pow(stretch, d / (d - 2));
}

// The plane, as a real number, that turns `turns` times over the original positions.
double plane_of_turns(const RopeConfig& rope, std::int64_t head_dim, double turns) {
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  return static_cast<double>(head_dim) * std::log(original / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

void interpolate_yarn(const RopeConfig& rope, std::int64_t head_dim, std::vector<float>& frequencies) {
  double low = plane_of_turns(rope, head_dim, rope.beta_fast);
  double high = plane_of_turns(rope, head_dim, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(head_dim - 1));
  if (low == high) high += 0.001;  // no division by zero: every plane is on one side or the other
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const float position = (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float ramp = std::clamp(position, 0.0F, 1.0F);
    frequencies[i] = frequencies[i] / static_cast<float>(rope.factor) * ramp + frequencies[i] * (1 - ramp);
  }
}

}  // namespace

std::vector<float> rope_frequencies(const ModelConfig& config, std::int64_t length) {
  const RopeConfig& rope = config.rope;
  const bool dynamic = rope.type == RopeType::dynamic;
  const auto theta = static_cast<float>(dynamic ? dynamic_theta(rope, config.head_dim, length) : rope.theta);
  std::vector<float> frequencies(static_cast<std::size_t>(config.head_dim / 2));
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    frequencies[i] = 1.0F / std::pow(theta, exponent);
    if (rope.type == RopeType::linear) frequencies[i] /= static_cast<float>(rope.factor);
    if (rope.type == RopeType::llama3) frequencies[i] = scale_llama3(frequencies[i], rope);
  }
  if (rope.type == RopeType::yarn) interpolate_yarn(rope, config.head_dim, frequencies);
  return frequencies;
}

RopeAngles make_rope_angles(const ModelConfig& config, std::int64_t positions) {
  const std::vector<float> frequencies = rope_frequencies(config, positions);
  const auto scale = static_cast<float>(config.rope.attention_factor);
  RopeAngles angles;
  angles.cos.reserve(static_cast<std::size_t>(positions) * frequencies.size());
  angles.sin.reserve(angles.cos.capacity());
  for (std::int64_t position = 0; position < positions; ++position) {
    for (const float frequency : frequencies) {
      const float angle = static_cast<float>(position) * frequency;
      angles.cos.push_back(std::cos(angle) * scale);
      angles.sin.push_back(std::sin(angle) * scale);
    }
  }
  return angles;
}

}  // namespace qshard
