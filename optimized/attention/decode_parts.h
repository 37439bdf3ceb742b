#pragma once

#include <cstdint>

namespace qshard::optimized {

/// How a cache of `capacity` tokens is cut: parts of whole 64 tokens, at most kMostDecodeParts of them.
inline constexpr std::int64_t kMostDecodeParts = 64;

constexpr std::int64_t decode_part_tokens(std::int64_t capacity) {
  const std::int64_t blocks = (capacity + 63) / 64;
  return (blocks + kMostDecodeParts - 1) / kMostDecodeParts * 64;
}

constexpr std::int64_t decode_parts(std::int64_t capacity) {
  return (capacity + decode_part_tokens(capacity) - 1) / decode_part_tokens(capacity);
}

}  // namespace qshard::optimized
