#include "bench/gpu/host_weight.h"

#include <bit>

#include "bench/gpu/problem.h"
#include "bench/gpu/random_data.h"
#include "reference/dequantize.h"
#include "reference/double_quant.h"
#include "reference/quantize.h"

namespace qshard::bench {
namespace {

constexpr double kWeightDeviation = 0.02;  // about that of a trained linear layer
constexpr std::uint64_t kWeightSeed = 20240501;

Weight4bit nest(const Weight4bit& plain, std::optional<float> offset) {
  Weight4bit nested = plain;
  auto scales = reference::nest_absmax(plain.absmax, dynamic_map(), offset, reference::Reciprocal::gpu);
  nested.info.nested = true;
  nested.info.offset = scales.offset;
  nested.info.nested_map = dynamic_map();
  nested.absmax.clear();
  nested.absmax_codes = std::move(scales.codes);
  nested.nested_absmax = std::move(scales.nested_absmax);
  return nested;
}

}  // namespace

HostWeight::HostWeight(const qshard_problem& problem) : problem_(problem) {}

bool HostWeight::fits(const qshard_problem& problem) const {
  return problem.n == problem_.n && problem.k == problem_.k && problem.dtype == problem_.dtype &&
         problem.quant_type == problem_.quant_type && problem.blocksize == problem_.blocksize;
}

const Tensor& HostWeight::dense() {
  if (!dense_) dense_ = random_tensor(dtype_of(problem_), {problem_.n, problem_.k}, kWeightDeviation, kWeightSeed);
  return *dense_;
}

const Weight4bit& HostWeight::quantized(bool nested) {
  auto& slot = quantized_.at(nested ? 1 : 0);
  if (slot) return *slot;
  if (nested) return slot.emplace(nest(quantized(false), std::nullopt));
  QuantizationOptions options;
  options.double_quant = false;
  options.quant_type = quant_type_of(problem_);
  options.blocksize = static_cast<int>(problem_.blocksize);
  return slot.emplace(reference::quantize(dense().view(), options, "the benchmark's weight"));
}

const Tensor& HostWeight::dequantized(bool nested) {
  auto& slot = dequantized_.at(nested ? 1 : 0);
  if (!slot) slot = reference::dequantize(quantized(nested).view(), dtype_of(problem_));
  return *slot;
}

const Weight4bit& HostWeight::nested_with_offset(float offset) {
  const auto same = [offset](const std::optional<Weight4bit>& weight) {
    return weight && std::bit_cast<std::uint32_t>(weight->info.offset) == std::bit_cast<std::uint32_t>(offset);
  };
  if (!same(with_offset_)) with_offset_ = nest(quantized(false), offset);
  return *with_offset_;
}

MeanBound mean_of_absmax(const Weight4bit& plain) {
  double sum = 0;
  for (const float value : plain.absmax) sum += static_cast<double>(value);
  const auto count = static_cast<double>(plain.absmax.size());
  return {sum / count, sum / count * (count + 1) * 0x1p-24};
}

}  // namespace qshard::bench
