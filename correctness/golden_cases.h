#pragma once

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "core/base/json.h"

namespace qshard {

/// The golden data: in the source tree, or, for tests that run on another machine, where QSHARD_GOLDEN_DIR points.
inline std::string golden_directory() {
  const char* moved = std::getenv("QSHARD_GOLDEN_DIR");
  return moved != nullptr ? moved : QSHARD_GOLDEN_DIR;
}

/// golden/quant_cases.json with null for every offset: among them are Infinity and NaN, which JSON has not. The
/// tensors beside it hold the offsets to the bit.
inline Json read_golden_cases() {
  std::ifstream file(golden_directory() + "/quant_cases.json");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::string key = "\"offset\": ";
  for (std::size_t at = text.find(key); at != std::string::npos; at = text.find(key, at + 1)) {
    const std::size_t value = at + key.size();
    text.replace(value, text.find('\n', value) - value, "null");
  }
  return Json::parse(text);
}

}  // namespace qshard
