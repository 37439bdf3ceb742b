#include "core/weight4bit.h"

#include "core/error.h"

namespace qshard {

bool is_supported_blocksize(std::int64_t blocksize) {
  return blocksize >= 32 && blocksize <= 4096 && (blocksize & (blocksize - 1)) == 0;
}

std::int64_t packed_bytes(std::int64_t elements) {
  return elements / 2 + elements % 2;
}

std::int64_t block_count(std::int64_t elements, std::int64_t blocksize) {
  return elements / blocksize + (elements % blocksize != 0 ? 1 : 0);
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
