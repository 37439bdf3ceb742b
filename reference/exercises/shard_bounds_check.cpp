// Checks the exercise shard_bounds: fails while its gap is open. EXERCISE is the file with the gap, or the solution.
#include EXERCISE

#include "core/sharding/shard_layout.h"
#include "reference/exercises/checking.h"

int main() {
  using namespace qshard;
  std::vector<std::int64_t> found;
  std::vector<std::int64_t> expected;
  for (const std::int64_t elements : {1, 7, 64, 1000}) {
    for (const int world_size : {1, 2, 3, 8}) {
      const std::vector<ModelStage> stages = {{"s", {{"w", ParameterKind::codes, DType::bf16, {elements, 1}}}}};
      const Flat flat = plan_shards(stages, world_size, ShardingStrategy::full_shard).units[0].flats[0];
      for (int rank = 0; rank < world_size; ++rank) {
        const Bounds bounds = shard_bounds(2 * elements, world_size, rank);
        found.insert(found.end(), {bounds.begin, bounds.end});
        expected.push_back(std::min(rank * flat.shard_bytes, 2 * elements));
        expected.push_back(std::min((rank + 1) * flat.shard_bytes, 2 * elements));
      }
    }
  }
  return compare("begin and end of each rank's shard", found, expected);
}
