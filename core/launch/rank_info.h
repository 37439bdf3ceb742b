#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace qshard {

/// What started this process.
enum class Launcher : std::uint8_t { none, own, torchrun, open_mpi, mpich, slurm };

/// "the own launcher", "torchrun", "mpirun (Open MPI)", "mpirun (MPICH)", "srun"; empty for none.
std::string_view to_string(Launcher launcher);

/// Where the ranks of a job find each other.
enum class Rendezvous : std::uint8_t {
  none,          // one process
  local_socket,  // all ranks on one host: an abstract Unix socket named after the job
  tcp,           // rank 0 listens on address:port
  tcp_store,     // torchrun's agent listens on address:port and keeps keys and values
};

/// This process's place among the processes of its job, one rank a process.
struct RankInfo {
  Launcher launcher = Launcher::none;
  int rank = 0;
  int world_size = 1;
  std::optional<int> local_rank;  // among the ranks of this host; empty where the launcher does not tell
  Rendezvous rendezvous = Rendezvous::none;
  std::string address;  // host name or IP address; empty with a local socket
  int port = 0;
  std::string job;  // the same for all ranks of a job and for no other job on the host; two jobs never mix
};

/// Reads one environment variable; empty where it is not set.
using ReadVariable = std::function<std::optional<std::string>(std::string_view name)>;

/// The process's own environment.
std::optional<std::string> environment_variable(std::string_view name);

/// The place of this process, from the variables of whichever launcher started it; of two, the inner one (torchrun
/// within srun). In this order:
///   own launcher   QSHARD_RANK, QSHARD_WORLD_SIZE, QSHARD_LOCAL_RANK, QSHARD_JOB
///   torchrun       RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT; TORCHELASTIC_USE_AGENT_STORE, _RUN_ID and
///                  _RESTART_COUNT. Set by hand they work too, without the last three.
///   Open MPI       OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE
///   MPICH          PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS
///   srun           SLURM_PROCID, SLURM_STEP_NUM_TASKS (or SLURM_NTASKS), SLURM_LOCALID, SLURM_STEP_ID
/// mpirun and srun give no address: MASTER_ADDR and MASTER_PORT are used where they are set; without them all ranks
/// must be on this host and meet at a local socket. Throws Error(bad_input), naming the variable and what to do, for a
/// missing partner, a number out of bounds, several hosts without an address, and variables that contradict each other.
RankInfo read_rank_info(const ReadVariable& variable);

}  // namespace qshard
