#include "bench/gpu/problem.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "core/tensor/weight4bit.h"

namespace qshard::bench {
namespace {

constexpr std::array<DType, 3> kDTypes = {DType::f32, DType::f16, DType::bf16};
constexpr std::array<std::string_view, 3> kDTypeNames = {"f32", "f16", "bf16"};
constexpr std::array<std::string_view, 4> kOperations = {"dequantize", "quantize", "linear4bit", "linear4bit_backward"};

/// Bytes of the codes and scales; blocks follow the flattened weight.
double quantized_bytes(const qshard_problem& problem) {
  const std::int64_t elements = problem.n * problem.k;
  const auto blocks = block_count(elements, problem.blocksize);
  const std::int64_t scales = problem.nested != 0 ? blocks + 4 * block_count(blocks, kNestedBlocksize) + 4 : 4 * blocks;
  return static_cast<double>(packed_bytes(elements) + scales);
}

}  // namespace

DType dtype_of(const qshard_problem& problem) {
  return kDTypes.at(problem.dtype);
}

QuantType quant_type_of(const qshard_problem& problem) {
  return problem.quant_type == QSHARD_NF4 ? QuantType::nf4 : QuantType::fp4;
}

std::string_view operation_name(std::uint32_t operation) {
  return kOperations.at(operation);
}

bool is_linear(const qshard_problem& problem) {
  return problem.operation == QSHARD_LINEAR4BIT || problem.operation == QSHARD_LINEAR4BIT_BACKWARD;
}

Traffic traffic_of(const qshard_problem& problem, bool dense) {
  const auto itemsize = static_cast<double>(size_of(dtype_of(problem)));
  const double elements = static_cast<double>(problem.n) * static_cast<double>(problem.k);
  const double dense_bytes = itemsize * elements;
  Traffic traffic;
  traffic.weight_bytes = dense ? dense_bytes : quantized_bytes(problem);
  if (problem.operation == QSHARD_DEQUANTIZE) {
    traffic.bytes_read = traffic.weight_bytes;
    traffic.bytes_written = dense_bytes;
  } else if (problem.operation == QSHARD_QUANTIZE) {
    traffic.bytes_read = dense_bytes;
    traffic.bytes_written = traffic.weight_bytes;
  } else {
    const double x_bytes = itemsize * static_cast<double>(problem.rows * problem.k);
    const double y_bytes = itemsize * static_cast<double>(problem.rows * problem.n);
    const bool forward = problem.operation == QSHARD_LINEAR4BIT;
    traffic.bytes_read = traffic.weight_bytes + (forward ? x_bytes : y_bytes);
    traffic.bytes_written = forward ? y_bytes : x_bytes;
    traffic.flops = 2.0 * static_cast<double>(problem.rows) * elements;
  }
  return traffic;
}

CopyCount::CopyCount(std::size_t bytes, std::size_t l2_bytes) {
  const std::size_t each = std::max<std::size_t>(1, bytes);
  const std::size_t needed = std::max<std::size_t>(2, (kColdFactor * l2_bytes + each - 1) / each);
  copies = std::min(needed, kMostCopies);
  cold = needed <= kMostCopies;
}

std::string problem_name(const qshard_problem& problem, const Manner& manner) {
  return fmt::format("{}{}/n:{}/k:{}/blocksize:{}/dtype:{}/nested:{}{}{}{}", operation_name(problem.operation),
                     is_linear(problem) ? fmt::format("/rows:{}", problem.rows) : "", problem.n, problem.k,
                     problem.blocksize, kDTypeNames.at(problem.dtype), problem.nested,
                     problem.quant_type == QSHARD_FP4 ? "/type:fp4" : "", manner.warm ? "/warm:1" : "",
                     manner.sustained_seconds > 0 ? fmt::format("/sustained:{}", manner.sustained_seconds) : "");
}

std::string row_name(const qshard_problem& problem, std::string_view provider, const Manner& manner) {
  const std::string name = problem_name(problem, manner);
  const std::size_t end = name.find('/');
  return fmt::format("{}/provider:{}{}", name.substr(0, end), provider, name.substr(end));
}

}  // namespace qshard::bench
