#include "reference/quantize.h"

#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/base/error.h"
#include "core/tensor/finite.h"
#include "core/tensor/float16.h"
#include "reference/block_absmax.h"
#include "reference/double_quant.h"
#include "reference/flush_to_zero.h"
#include "reference/parallel.h"

namespace qshard::reference {
namespace {

constexpr std::size_t kLargestBlock = 4096;
constexpr std::int64_t kPieceElements = 1 << 16;  // what a thread takes at once

// The comparisons with all thresholds are written out side by side so that the compiler turns a loop over elements
// into vector instructions. NaN is above no threshold.
template <std::size_t... I>
std::uint32_t nf4_code(float x, std::index_sequence<I...> /*thresholds*/) {
  return ((x > kNf4Thresholds[I] ? 1U : 0U) + ...);
}

// Each threshold passed turns the code before it into the one after it.
template <std::size_t... I>
std::uint32_t fp4_code(float x, std::index_sequence<I...> /*thresholds*/) {
  const float magnitude = std::fabs(x);
  const std::uint32_t sign = x < 0.0F ? 8U : 0U;
  return (sign ^ ... ^ (magnitude > kFp4Thresholds[I] ? std::uint32_t{kFp4Order[I]} ^ kFp4Order[I + 1] : 0U));
}

template <QuantType type>
std::uint32_t code_of(float x) {
  if constexpr (type == QuantType::nf4) return nf4_code(x, std::make_index_sequence<kNf4Thresholds.size()>());
  return fp4_code(x, std::make_index_sequence<kFp4Thresholds.size()>());
}

// `scale` is the block's reciprocal. Writes ceil(block.size() / 2) bytes; an odd element's partner counts as 0.
template <QuantType type>
void pack_block(std::span<const float> block, float scale, std::uint8_t* packed) {
  std::array<std::uint8_t, kLargestBlock + 1> codes;
  for (std::size_t i = 0; i < block.size(); ++i) {
    codes[i] = static_cast<std::uint8_t>(code_of<type>(multiply_flushed(block[i], scale)));
  }
  if (block.size() % 2 == 1) codes[block.size()] = static_cast<std::uint8_t>(code_of<type>(0.0F * scale));
  for (std::size_t j = 0; j < (block.size() + 1) / 2; ++j) {
    packed[j] = static_cast<std::uint8_t>(codes[2 * j] << 4 | codes[2 * j + 1]);
  }
}

template <typename T>
void load(std::span<const std::byte> bytes, std::size_t first, std::span<float> values) {
  std::array<T, kLargestBlock> elements;
  std::memcpy(elements.data(), bytes.data() + first * sizeof(T), values.size() * sizeof(T));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = to_float(elements[i]);
}

template <typename T, QuantType type>
void quantize_blocks(std::span<const std::byte> bytes, int blocksize, Reciprocal kind, Weight4bit& result) {
  const std::size_t elements = bytes.size() / sizeof(T);
  const auto step = static_cast<std::size_t>(blocksize);
  parallel_for(std::ssize(result.absmax), kPieceElements / blocksize, [&](std::int64_t begin, std::int64_t end) {
    std::array<float, kLargestBlock> buffer;
    for (auto block = static_cast<std::size_t>(begin); block < static_cast<std::size_t>(end); ++block) {
      const std::size_t first = block * step;
      const std::span<float> values(buffer.data(), std::min(step, elements - first));
      load<T>(bytes, first, values);
      const float absmax = block_absmax(values, blocksize);
      result.absmax[block] = absmax;
      pack_block<type>(values, reciprocal(absmax, kind), result.codes.data() + first / 2);
    }
  });
}

template <typename T>
void quantize_blocks(std::span<const std::byte> bytes, int blocksize, Reciprocal kind, Weight4bit& result) {
  if (result.info.quant_type == QuantType::nf4) {
    quantize_blocks<T, QuantType::nf4>(bytes, blocksize, kind, result);
  } else {
    quantize_blocks<T, QuantType::fp4>(bytes, blocksize, kind, result);
  }
}

void check(const TensorView& weight, const QuantizationOptions& options, std::string_view name) {
  if (!is_floating(weight.dtype)) {
    fail_input("{}: only float32, float16 and bfloat16 tensors can be quantized, not {}", name,
               torch_name(weight.dtype));
  }
  if (!is_supported_blocksize(options.blocksize)) {
    fail_input("{}: block size {} is not supported; use 32, 64, 128, 256, 512, 1024, 2048 or 4096", name,
               options.blocksize);
  }
  const std::int64_t elements = element_count(weight.shape);
  if (elements <= 0) fail_input("{}: a tensor of shape {} has nothing to quantize", name, to_string(weight.shape));
  if (weight.bytes.size() != static_cast<std::size_t>(elements) * size_of(weight.dtype)) {
    fail_input("{}: {} bytes do not hold a {} tensor of shape {}", name, weight.bytes.size(), torch_name(weight.dtype),
               to_string(weight.shape));
  }
  storage_shape(elements, options.quant_storage, name);
}

void nest(const QuantizationArithmetic& arithmetic, Weight4bit& result) {
  NestedAbsmax nested = nest_absmax(result.absmax, dynamic_map(), arithmetic.offset, arithmetic.reciprocal);
  result.info.nested = true;
  result.info.offset = nested.offset;
  result.info.nested_map = dynamic_map();
  result.absmax.clear();
  result.absmax.shrink_to_fit();
  result.absmax_codes = std::move(nested.codes);
  result.nested_absmax = std::move(nested.nested_absmax);
}

}  // namespace

Weight4bit quantize(const TensorView& weight, const QuantizationOptions& options, std::string_view name,
                    const QuantizationArithmetic& arithmetic) {
  check(weight, options, name);
  const std::int64_t elements = element_count(weight.shape);
  Weight4bit result;
  result.info.quant_type = options.quant_type;
  result.info.blocksize = options.blocksize;
  result.info.dtype = weight.dtype;
  result.info.storage = options.quant_storage;
  result.info.shape = weight.shape;
  result.codes.resize(static_cast<std::size_t>(packed_bytes(elements)));
  result.absmax.resize(static_cast<std::size_t>(block_count(elements, options.blocksize)));
  if (weight.dtype == DType::f32) {
    quantize_blocks<float>(weight.bytes, options.blocksize, arithmetic.reciprocal, result);
  } else if (weight.dtype == DType::bf16) {
    quantize_blocks<bfloat16>(weight.bytes, options.blocksize, arithmetic.reciprocal, result);
  } else {
    quantize_blocks<float16>(weight.bytes, options.blocksize, arithmetic.reciprocal, result);
  }
  if (options.double_quant) nest(arithmetic, result);
  return result;
}

Weight4bit quantize_weight(const TensorView& weight, const QuantizationOptions& options, std::string_view name) {
  Weight4bit quantized = quantize(weight, options, name);
  check_finite(weight, name);
  return quantized;
}

}  // namespace qshard::reference
