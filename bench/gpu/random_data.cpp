#include "bench/gpu/random_data.h"

#include <cmath>

#include "core/tensor/float16.h"
#include "reference/parallel.h"

namespace qshard::bench {
namespace {

/// The finalizer of splitmix64.
std::uint64_t mix(std::uint64_t value) {
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ value >> 27) * 0x94D049BB133111EBULL;
  return value ^ value >> 31;
}

template <typename T>
void fill(std::span<T> out, float scale, std::uint64_t seed) {
  reference::parallel_for(static_cast<std::int64_t>(out.size()), 1 << 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint64_t bits = mix(seed + 0x9E3779B97F4A7C15ULL * static_cast<std::uint64_t>(i + 1));
      const auto sum = static_cast<int>((bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48));
      out[i] = from_float<T>(scale * static_cast<float>(sum - 131070));
    }
  });
}

}  // namespace

Tensor random_tensor(DType dtype, const Shape& shape, double deviation, std::uint64_t seed) {
  Tensor tensor(dtype, shape);
  const auto scale = static_cast<float>(deviation / (65536.0 / std::sqrt(3.0)));  // four uniforms: variance 65536^2 / 3
  if (dtype == DType::f32) fill(tensor.as<float>(), scale, seed);
  if (dtype == DType::f16) fill(tensor.as<float16>(), scale, seed);
  if (dtype == DType::bf16) fill(tensor.as<bfloat16>(), scale, seed);
  return tensor;
}

}  // namespace qshard::bench
