#include "optimized/sharded/transport_choice.h"

#include <cstdio>
#include <optional>
#include <string>

#include "core/base/error.h"
#include "optimized/sharded/peer_memory.h"

namespace qshard::optimized {

Transport choose_transport(Transport wanted, bool offload, RankLink& link) {
  if (offload) {
    if (wanted == Transport::automatic || wanted == Transport::host) return Transport::host;
    fail_input(
        "fsdp.fsdp_offload_params keeps the shards in host memory, from where fsdp.transport: host brings them; "
        "{} cannot: leave fsdp.transport out",
        to_string(wanted));
  }
  if (link.world_size() == 1) return Transport::peer;
  if (wanted == Transport::host || wanted == Transport::nccl) return wanted;
  const std::optional<std::string> obstacle = find_peer_obstacle(link);
  if (!obstacle) return Transport::peer;
  if (wanted == Transport::peer) fail_input("{}; use fsdp.transport: nccl or host", *obstacle);
  if (link.is_first()) fmt::print(stderr, "note: {}; shards go over NCCL\n", *obstacle);
  return Transport::nccl;
}

}  // namespace qshard::optimized
