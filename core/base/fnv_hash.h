#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace qshard {

inline constexpr std::uint64_t kFnvBasis = 0xCBF29CE484222325U;

/// FNV-1a, 64 bits: a fixed number for the same bytes on every platform. `hash`: that of the bytes before these.
constexpr std::uint64_t fnv_hash(std::span<const std::byte> bytes, std::uint64_t hash = kFnvBasis) {
  for (const std::byte byte : bytes) hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001B3U;
  return hash;
}

inline std::uint64_t fnv_hash(std::string_view text) {
  return fnv_hash(std::as_bytes(std::span(text)));
}

}  // namespace qshard
