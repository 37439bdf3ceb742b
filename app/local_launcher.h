#pragma once

namespace qshard {

/// Starts `ranks` processes of this very command on this host, one rank each (variables QSHARD_RANK, QSHARD_WORLD_SIZE,
/// QSHARD_LOCAL_RANK and QSHARD_JOB), and waits for all of them. SIGINT and SIGTERM are passed on. When a process
/// fails, the others have 30 seconds (QSHARD_GRACE_SECONDS, from 0 to 86,400) to end by themselves, then they are
/// killed; if this process is killed, so are they. OMP_NUM_THREADS, where it is not set, becomes an equal part of the
/// processors. Returns 0; or the exit code of the first process that failed, 4 where a signal ended it; or 128 + the
/// signal that stopped the job.
int launch_ranks(int ranks);

}  // namespace qshard
