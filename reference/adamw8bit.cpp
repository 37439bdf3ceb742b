#include "reference/adamw8bit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "core/tensor/codebook.h"
#include "reference/nearest_code.h"
#include "reference/rounded.h"

namespace qshard::reference {
namespace {

struct Factors {
  float beta1, beta2, keep, keep_sq, step_size, epsilon, decay;

  Factors(const AdamWOptions& options, double learning_rate, std::int64_t step)
      : beta1(static_cast<float>(options.beta1)),
        beta2(static_cast<float>(options.beta2)),
        keep(1.0F - beta1),
        keep_sq(1.0F - beta2) {
    const auto t = static_cast<double>(step);
    const double correction = std::sqrt(1.0 - std::pow(static_cast<double>(beta2), t));
    step_size = static_cast<float>(learning_rate * correction / (1.0 - std::pow(static_cast<double>(beta1), t)));
    epsilon = static_cast<float>(correction * options.epsilon);
    decay = static_cast<float>(1.0 - learning_rate * options.weight_decay);
  }
};

// The values of a block become its codes.
void quantize_block(std::span<const float> values, std::span<std::uint8_t> codes, float& absmax,
                    const std::array<float, 256>& map, bool keep_sign) {
  absmax = 0.0F;
  for (const float value : values) absmax = std::fmax(absmax, std::fabs(value));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint8_t code = nearest_code(values[i] / absmax, map);
    const bool turned = keep_sign && std::signbit(map[code]) != std::signbit(values[i]);
    codes[i] = turned ? static_cast<std::uint8_t>(values[i] > 0.0F ? code + 1 : code - 1) : code;
  }
}

}  // namespace

void adamw8bit_update(std::span<float> parameter, std::span<const float> gradient, const Moment8bit& exp_avg,
                      const Moment8bit& exp_avg_sq, const AdamWOptions& options, DType dtype, double learning_rate,
                      std::int64_t step) {
  const Factors by(options, learning_rate, step);
  const std::array<float, 256>& map = dynamic_map();
  const std::array<float, 256>& map_sq = unsigned_dynamic_map();
  std::vector<float> m;
  std::vector<float> v;
  for (std::size_t first = 0; first < parameter.size(); first += kMomentBlocksize) {
    const std::size_t block = first / kMomentBlocksize;
    const std::size_t count = std::min<std::size_t>(kMomentBlocksize, parameter.size() - first);
    m.assign(count, 0.0F);
    v.assign(count, 0.0F);
    for (std::size_t i = 0; i < count; ++i) {
      const float g = gradient[first + i];
      if (!std::isfinite(g)) continue;
      const float old_m = map[exp_avg.codes[first + i]] * exp_avg.absmax[block];
      const float old_v = map_sq[exp_avg_sq.codes[first + i]] * exp_avg_sq.absmax[block];
      m[i] = old_m * by.beta1 + by.keep * g;
      v[i] = old_v * by.beta2 + by.keep_sq * g * g;
      float& p = parameter[first + i];
      p = rounded(p - by.step_size * (m[i] / (std::sqrt(v[i]) + by.epsilon)), dtype);
      if (options.weight_decay > 0) p = rounded(p * by.decay, dtype);
    }
    quantize_block(m, exp_avg.codes.subspan(first, count), exp_avg.absmax[block], map, true);
    quantize_block(v, exp_avg_sq.codes.subspan(first, count), exp_avg_sq.absmax[block], map_sq, false);
  }
}

}  // namespace qshard::reference
