#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/base/error.h"

namespace qshard::fuzz {

inline std::string_view as_text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Stops the fuzzer, which then keeps the input, unless `condition` holds.
inline void require(bool condition) {
  if (!condition) std::abort();
}

/// Runs `action`. Error(bad_input) is what bad input should give; anything else that is thrown reaches the fuzzer.
template <typename Action>
void expect_handled(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    require(error.code() == ExitCode::bad_input);
  }
}

}  // namespace qshard::fuzz
