#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace qshard::reference {

/// The elements of one stage, side by side in a vector that is sorted by stage_of(element). std::ranges::equal_range
/// would do, but clang 14 cannot compile it with g++ 12's library.
template <typename Element, typename StageOf>
std::span<Element> stage_range(std::vector<Element>& sorted, std::size_t stage, const StageOf& stage_of) {
  const auto begin = std::partition_point(sorted.begin(), sorted.end(),
                                          [&](const Element& element) { return stage_of(element) < stage; });
  const auto end =
      std::partition_point(begin, sorted.end(), [&](const Element& element) { return stage_of(element) == stage; });
  return {sorted.data() + (begin - sorted.begin()), static_cast<std::size_t>(end - begin)};
}

}  // namespace qshard::reference
