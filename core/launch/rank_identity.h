#pragma once

#include <cstdint>
#include <string>

#include "core/base/error.h"

namespace qshard {

/// Who a rank is, for messages and to see which ranks share a host.
struct RankIdentity {
  std::string host;
  std::string host_id;  // the same for two processes exactly when one kernel and one host name run both
  std::int64_t pid = 0;
};

/// This process.
RankIdentity own_identity();

/// "rank 1 (process 4711 on gpu07)".
std::string describe(int rank, const RankIdentity& identity);

/// What ends the job: a rank that died, that is silent, or that told of an error.
struct RankFailure {
  int rank = 0;
  ExitCode code = ExitCode::rank_failed;
  std::string message;  // names the rank, its process and host, and the reason
};

}  // namespace qshard
