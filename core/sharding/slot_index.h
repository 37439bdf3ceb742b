#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "core/sharding/shard_layout.h"

namespace qshard {

/// Where a parameter lies: layout.units[unit].flats[flat].slots[slot].
struct SlotPlace {
  std::size_t unit = 0;
  std::size_t flat = 0;
  std::size_t slot = 0;
};

/// Finds the parameters of a layout by what they are, in constant time; names are for files and messages only.
class SlotIndex {
 public:
  explicit SlotIndex(const ShardLayout& layout);

  /// A parameter of a stage (0: the embedding, layer + 1: a decoder layer, the last: the head), or nullptr where the
  /// model has none. `projection` counts from ParameterRole::weight on.
  [[nodiscard]] const SlotPlace* find(std::size_t stage, ParameterRole role,
                                      Projection projection = Projection::q) const;

 private:
  static constexpr std::size_t kFirstOfModule = static_cast<std::size_t>(ParameterRole::weight);
  static constexpr std::size_t kModuleRoles =
      static_cast<std::size_t>(ParameterRole::dora_magnitude) - kFirstOfModule + 1;
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);  // as a place's unit

  static std::size_t key(ParameterRole role, Projection projection);

  using Stage = std::array<SlotPlace, kFirstOfModule + kModuleRoles * kProjections>;
  std::vector<Stage> stages_;
};

}  // namespace qshard
