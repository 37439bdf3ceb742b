#pragma once

#include <span>
#include <string_view>

namespace qshard {

/// Levenshtein distance: the fewest insertions, deletions and replacements of one byte that turn one into the other.
std::size_t edit_distance(std::string_view from, std::string_view to);

/// The candidate nearest to `name`, or an empty view when even that one differs in more than a third of its bytes
/// (two at least are allowed). The first of equally near ones.
std::string_view nearest_name(std::string_view name, std::span<const std::string_view> candidates);

}  // namespace qshard
