#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/tensor/codebook.h"
#include "core/tensor/tensor.h"

namespace qshard {

/// What is needed besides the bytes to rebuild a 4-bit weight; small, replicated on every rank.
struct Weight4bitInfo {
  QuantType quant_type = QuantType::nf4;
  int blocksize = 64;                   // 32, 64, ..., 4096 consecutive elements of the flattened row-major weight
  DType dtype = DType::bf16;            // of the weight before quantization; the default dequantized dtype
  DType storage = DType::u8;            // quant_storage: the dtype the packed bytes are held and moved in
  Shape shape;                          // of the weight before quantization
  bool nested = false;                  // absmax itself quantized to 8 bits (double quantization)
  float offset = 0.0F;                  // nested: the mean of absmax, taken off before and added after
  std::array<float, 256> nested_map{};  // nested: value of each 8-bit absmax code
};

/// Nested quantization works on blocks of this many absmax values; bitsandbytes has no other.
inline constexpr std::int64_t kNestedBlocksize = 256;

/// True for 32, 64, 128, 256, 512, 1024, 2048 and 4096.
bool is_supported_blocksize(std::int64_t blocksize);

/// Sizes of the parts of a 4-bit weight of `elements` elements.
std::int64_t packed_bytes(std::int64_t elements);                         // ceil(elements / 2)
std::int64_t block_count(std::int64_t elements, std::int64_t blocksize);  // ceil(elements / blocksize)

/// A 4-bit weight in somebody else's memory. Byte j of `codes` holds element 2j in the high nibble and 2j + 1 in the
/// low one. Without nesting `absmax` holds one scale a block; with it `absmax_codes` holds one byte a block and
/// `nested_absmax` one scale for each 256 of them.
struct Weight4bitView {
  const Weight4bitInfo* info = nullptr;
  std::span<const std::uint8_t> codes;
  std::span<const float> absmax;
  std::span<const std::uint8_t> absmax_codes;
  std::span<const float> nested_absmax;
};

/// A 4-bit weight that owns its memory.
struct Weight4bit {
  Weight4bitInfo info;
  std::vector<std::uint8_t> codes;
  std::vector<float> absmax;
  std::vector<std::uint8_t> absmax_codes;
  std::vector<float> nested_absmax;

  [[nodiscard]] Weight4bitView view() const { return {&info, codes, absmax, absmax_codes, nested_absmax}; }
};

/// Checks that the parts of a weight fit each other: a supported block size, a non-empty shape, and for each part the
/// number of values that shape, block size and nesting ask for. Throws Error(bad_input) naming `name` and the part.
void check_consistent(const Weight4bitView& weight, std::string_view name);

/// The shape [packed bytes / size_of(storage), 1] in which the packed bytes are stored as `storage`. A size that the
/// storage dtype cannot hold whole is an Error(bad_input) naming `name` (bitsandbytes writes past the end there).
Shape storage_shape(std::int64_t elements, DType storage, std::string_view name);

}  // namespace qshard
