#include "reference/adamw.h"

#include <algorithm>
#include <cmath>

#include "reference/rounded.h"

namespace qshard::reference {

void adamw_update(std::span<float> parameter, std::span<const float> gradient, std::span<float> exp_avg,
                  std::span<float> exp_avg_sq, const AdamWOptions& options, DType dtype, double learning_rate,
                  std::int64_t step) {
  const DType state_dtype = moment_dtype(options.moments, dtype);
  const double t = static_cast<double>(step);
  const auto step_size = static_cast<float>(learning_rate / (1.0 - std::pow(options.beta1, t)));
  const auto correction = static_cast<float>(std::sqrt(1.0 - std::pow(options.beta2, t)));
  const auto decay = static_cast<float>(1.0 - learning_rate * options.weight_decay);
  const auto keep = static_cast<float>(1.0 - options.beta1);
  const auto beta2 = static_cast<float>(options.beta2);
  const auto keep_sq = static_cast<float>(1.0 - options.beta2);
  const auto epsilon = static_cast<float>(options.epsilon);
  for (std::size_t i = 0; i < parameter.size(); ++i) {
    const float g = gradient[i];
    const float mean = exp_avg[i] + keep * (g - exp_avg[i]);
    const float mean_sq = beta2 * exp_avg_sq[i] + keep_sq * g * g;
    const float denominator = std::sqrt(mean_sq) / correction + epsilon;
    parameter[i] = rounded(parameter[i] * decay - step_size * mean / denominator, dtype);
    exp_avg[i] = rounded(mean, state_dtype);
    exp_avg_sq[i] = rounded(mean_sq, state_dtype);
  }
}

double clip_factor(double norm, double max_norm) {
  if (max_norm <= 0) return 1.0;
  return std::min(1.0, max_norm / (norm + 1e-6));
}

}  // namespace qshard::reference
