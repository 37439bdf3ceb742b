#pragma once

#include <cstdint>

namespace qshard::test {

/// The bits of a float as a GPU's arithmetic leaves them: its NaN is 0x7FFFFFFF.
inline std::uint32_t as_on_gpu(std::uint32_t bits) {
  return (bits & 0x7FFFFFFFU) > 0x7F800000U ? 0x7FFFFFFFU : bits;
}

}  // namespace qshard::test
