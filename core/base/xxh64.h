#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace qshard {

/// XXH64 with seed 0 (Yann Collet's specification, doc/xxhash_spec.md of xxHash): a fixed number for the same bytes on
/// every platform, at some GB/s; against damage and mix-ups, not against somebody who wants to deceive.
std::uint64_t xxh64(std::span<const std::byte> bytes);

}  // namespace qshard
