#include "reference/process_group.h"

#include "core/base/error.h"

namespace qshard::reference {

ProcessGroup make_process_group(int world_size, RankLink* link) {
  ProcessGroup group;
  group.link = link;
  const auto processes = static_cast<int>(group.processes());
  if (world_size < 1 || world_size % processes != 0) {
    fail_input("{} ranks cannot be dealt evenly to {} processes", world_size, processes);
  }
  group.local_ranks = static_cast<std::size_t>(world_size / processes);
  return group;
}

}  // namespace qshard::reference
