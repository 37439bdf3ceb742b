#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/sharding/shard_layout.h"
#include "core/training/moment_arrays.h"
#include "reference/process_group.h"

namespace qshard::reference {

/// AdamW's moments of one trainable flat, in the arrays of moment_arrays(): for each rank of this process those of its
/// shard. They begin as 0.
class ShardedMoments {
 public:
  ShardedMoments(const Flat& flat, const AdamWOptions& options, std::size_t ranks);

  /// Of one rank.
  [[nodiscard]] std::int64_t bytes() const;

  /// One AdamW step of a rank's shard (adamw_update() or adamw8bit_update()).
  void update(std::size_t rank, std::span<float> parameter, std::span<const float> gradient, double learning_rate,
              std::int64_t step);

  /// Adds the arrays of each slot, whole, to `tensors` where rank 0 is; loads them from there. parts: the shards that a
  /// flat is cut into (ShardLayout::shards). Both are collective. load() returns how many tensors it used.
  void save(const ProcessGroup& group, std::size_t parts, NamedTensors& tensors) const;
  std::size_t load(const ProcessGroup& group, std::size_t parts, const NamedTensors& tensors);

 private:
  [[nodiscard]] std::vector<std::byte> whole(std::size_t array, const ProcessGroup& group, std::size_t parts) const;
  void update_floats(std::size_t rank, std::span<float> parameter, std::span<const float> gradient,
                     double learning_rate, std::int64_t step);

  const Flat* flat_;
  AdamWOptions options_;
  std::vector<MomentArray> arrays_;
  std::vector<std::vector<Tensor>> shards_;  // [array][rank of this process]
};

}  // namespace qshard::reference
