#include "core/tensor/weight4bit.h"

#include "core/base/error.h"

namespace qshard {
namespace {

void check_part(std::string_view name, std::string_view part, std::size_t found, std::int64_t expected) {
  if (found != static_cast<std::size_t>(expected)) {
    fail_input("{}: {} has {} values, but its shape, block size and nesting ask for {}", name, part, found, expected);
  }
}

}  // namespace

bool is_supported_blocksize(std::int64_t blocksize) {
  return blocksize >= 32 && blocksize <= 4096 && (blocksize & (blocksize - 1)) == 0;
}

std::int64_t packed_bytes(std::int64_t elements) {
  return elements / 2 + elements % 2;
}

std::int64_t block_count(std::int64_t elements, std::int64_t blocksize) {
  return elements / blocksize + (elements % blocksize != 0 ? 1 : 0);
}

void check_consistent(const Weight4bitView& weight, std::string_view name) {
  const Weight4bitInfo& info = *weight.info;
  if (!is_supported_blocksize(info.blocksize)) {
    fail_input("{}: block size {} is not supported; use 32, 64, 128, 256, 512, 1024, 2048 or 4096", name,
               info.blocksize);
  }
  const std::int64_t elements = element_count(info.shape);
  if (elements <= 0) fail_input("{}: a 4-bit weight cannot have the empty shape {}", name, to_string(info.shape));
  const std::int64_t blocks = block_count(elements, info.blocksize);
  check_part(name, "packed data", weight.codes.size(), packed_bytes(elements));
  check_part(name, "absmax", weight.absmax.size(), info.nested ? 0 : blocks);
  check_part(name, "nested absmax codes", weight.absmax_codes.size(), info.nested ? blocks : 0);
  check_part(name, "nested_absmax", weight.nested_absmax.size(),
             info.nested ? block_count(blocks, kNestedBlocksize) : 0);
}

Shape storage_shape(std::int64_t elements, DType storage, std::string_view name) {
  const auto itemsize = static_cast<std::int64_t>(size_of(storage));
  const std::int64_t bytes = packed_bytes(elements);
  if (bytes % itemsize != 0) {
    fail_input(
        "{}: {} elements pack into {} bytes, which {} storage ({} bytes an element) cannot hold whole; use uint8", name,
        elements, bytes, torch_name(storage), itemsize);
  }
  return {bytes / itemsize, 1};
}

}  // namespace qshard
