#pragma once

#include <string_view>
#include <vector>

#include "core/launch/rank_identity.h"
#include "core/launch/rank_info.h"
#include "core/launch/socket.h"

namespace qshard {

/// The connections of one rank to all others, two for each; index = rank, closed for the rank itself.
struct RankMesh {
  std::vector<Socket> data;
  std::vector<Socket> watch;
  std::vector<RankIdentity> ranks;
};

/// Meets the other ranks and connects to each. Rank 0 listens at the job's meeting point: a local socket, MASTER_ADDR
/// and MASTER_PORT, or a port of its own choice that it writes into torchrun's store. The others say who they are, and
/// where they listen themselves; rank 0 answers with the list of all. Each rank then connects to those below it.
/// `version` must be the same on all ranks. Throws the errors of RankLink::connect.
RankMesh connect_ranks(const RankInfo& info, std::string_view version, SteadyTime deadline);

}  // namespace qshard
