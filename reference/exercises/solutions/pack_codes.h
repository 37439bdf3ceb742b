#pragma once

#include <cstdint>
#include <span>
#include <vector>

/// Exercise 3 (10 minutes; read core/tensor/weight4bit.h). Two codes a byte: byte j holds code 2j in its high nibble
/// and code 2j + 1 in its low one. With an odd number of codes the last low nibble is 0.
inline std::vector<std::uint8_t> pack_codes(std::span<const std::uint8_t> codes) {
  std::vector<std::uint8_t> packed((codes.size() + 1) / 2, 0);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    packed[i / 2] |= static_cast<std::uint8_t>(i % 2 == 0 ? codes[i] << 4 : codes[i]);
  }
  return packed;
}
