#pragma once

#include <cstddef>

#include <fmt/core.h>

namespace qshard {

/// The end of a check: says what came out against what should have, and gives the exit code.
template <typename T>
int report(const char* what, std::size_t wrong, std::size_t of, const T& first_found, const T& first_expected) {
  if (wrong == 0) {
    fmt::print("right: {} ({} values)\n", what, of);
    return 0;
  }
  fmt::print("not yet: {}: {} of {} values are wrong; the first is {}, it should be {}\n", what, wrong, of, first_found,
             first_expected);
  return 1;
}

/// Compares two lists value by value and reports.
template <typename List, typename Expected>
int compare(const char* what, const List& found, const Expected& expected) {
  using T = typename List::value_type;
  if (found.size() != expected.size()) {
    fmt::print("not yet: {}: {} values, there should be {}\n", what, found.size(), expected.size());
    return 1;
  }
  std::size_t wrong = 0;
  T first_found{};
  T first_expected{};
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (found[i] == expected[i]) continue;
    if (wrong++ == 0) {
      first_found = found[i];
      first_expected = expected[i];
    }
  }
  return report(what, wrong, found.size(), first_found, first_expected);
}

}  // namespace qshard
