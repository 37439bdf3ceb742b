#pragma once

#include "core/launch/rank_link.h"
#include "core/sharding/transport.h"

namespace qshard::optimized {

/// Collective, with the ranks' devices chosen: how shards come together in this run, never automatic. With one rank
/// nothing does, and it is peer. Offload takes host. Where automatic ends in NCCL, rank 0 says why on stderr. Throws
/// Error(bad_input) for offload with another transport than host, and for peer where a GPU cannot read another's
/// memory, naming the ranks.
Transport choose_transport(Transport wanted, bool offload, RankLink& link);

}  // namespace qshard::optimized
