#include "core/launch/rank_info.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include <fmt/format.h>
#include <unistd.h>

#include "core/base/error.h"

namespace qshard {
namespace {

using Names = std::initializer_list<std::string_view>;

/// The variables of one launcher, read with checks.
class Variables {
 public:
  explicit Variables(const ReadVariable& read) : read_(&read) {}

  [[nodiscard]] std::optional<std::string> text(std::string_view name) const {
    std::optional<std::string> value = (*read_)(name);
    if (value && value->empty()) value.reset();
    return value;
  }
  [[nodiscard]] bool has(std::string_view name) const { return text(name).has_value(); }

  [[nodiscard]] std::string text_or(std::string_view name, std::string_view fallback) const {
    return text(name).value_or(std::string(fallback));
  }

  [[nodiscard]] std::optional<std::int64_t> number(std::string_view name) const {
    const std::optional<std::string> value = text(name);
    if (!value) return std::nullopt;
    std::int64_t result = 0;
    const char* end = value->data() + value->size();
    const auto [rest, error] = std::from_chars(value->data(), end, result);
    if (error != std::errc() || rest != end) {
      fail_input("environment variable {} is \"{}\", which is not a number", name, *value);
    }
    return result;
  }

  /// The first of these that is set, or Error.
  [[nodiscard]] std::int64_t required(Names names, std::string_view partner) const {
    for (const std::string_view name : names) {
      if (const auto value = number(name)) return *value;
    }
    fail_input("environment variable {} is set, but {} is not; a launcher sets both, or unset {} to run one process",
               partner, *names.begin(), partner);
  }

 private:
  const ReadVariable* read_;
};

void check_bounds(const RankInfo& info, std::string_view rank_name, std::string_view size_name) {
  constexpr int kMost = 256;  // each pair of ranks is connected
  if (info.world_size < 1 || info.world_size > kMost) {
    fail_input("environment variable {} is {}; from 1 to {} processes can work together", size_name, info.world_size,
               kMost);
  }
  if (info.rank < 0 || info.rank >= info.world_size) {
    fail_input("environment variable {} is {}, but {} is {}: a rank is from 0 to one less", rank_name, info.rank,
               size_name, info.world_size);
  }
  if (info.local_rank && (*info.local_rank < 0 || *info.local_rank >= info.world_size)) {
    fail_input("the local rank is {}, but {} is {}: a local rank is from 0 to one less", *info.local_rank, size_name,
               info.world_size);
  }
}

/// The places that a launcher's variables give; what else it sets follows later.
std::optional<RankInfo> read_place(const Variables& variables, Launcher launcher, std::string_view rank_name,
                                   Names size_names, std::string_view local_name) {
  const auto rank = variables.number(rank_name);
  if (!rank) return std::nullopt;
  RankInfo info;
  info.launcher = launcher;
  const std::int64_t size = variables.required(size_names, rank_name);
  const auto narrow = [](std::int64_t value) { return static_cast<int>(std::clamp<std::int64_t>(value, -1, 1 << 20)); };
  info.rank = narrow(*rank);
  info.world_size = narrow(size);
  if (const auto local = variables.number(local_name)) info.local_rank = narrow(*local);
  check_bounds(info, rank_name, *size_names.begin());
  return info;
}

/// MASTER_ADDR and MASTER_PORT; false where neither is set.
bool read_address(const Variables& variables, RankInfo& info) {
  const auto address = variables.text("MASTER_ADDR");
  const auto port = variables.number("MASTER_PORT");
  if (!address && !port) return false;
  if (!address || !port) {
    fail_input("environment variable {} is set, but {} is not; the ranks need both to meet",
               address ? "MASTER_ADDR" : "MASTER_PORT", address ? "MASTER_PORT" : "MASTER_ADDR");
  }
  constexpr std::int64_t kLastPort = 65535;
  if (*port < 1 || *port > kLastPort) fail_input("environment variable MASTER_PORT is {}, which is no port", *port);
  info.rendezvous = Rendezvous::tcp;
  info.address = *address;
  info.port = static_cast<int>(*port);
  return true;
}

std::optional<RankInfo> read_own(const Variables& variables) {
  auto info = read_place(variables, Launcher::own, "QSHARD_RANK", {"QSHARD_WORLD_SIZE"}, "QSHARD_LOCAL_RANK");
  if (!info) return info;
  const auto job = variables.text("QSHARD_JOB");
  if (!job)
    fail_input("environment variable QSHARD_RANK is set, but QSHARD_JOB is not; start ranks with --ranks or --gpus");
  info->rendezvous = Rendezvous::local_socket;
  info->job = *job;
  return info;
}

std::optional<RankInfo> read_torchrun(const Variables& variables) {
  auto info = read_place(variables, Launcher::torchrun, "RANK", {"WORLD_SIZE"}, "LOCAL_RANK");
  if (!info) return info;
  if (!read_address(variables, *info) && info->world_size > 1) {
    fail_input(
        "environment variable RANK is set, but MASTER_ADDR and MASTER_PORT are not; the ranks need them to meet");
  }
  if (variables.text_or("TORCHELASTIC_USE_AGENT_STORE", "False") == "True") info->rendezvous = Rendezvous::tcp_store;
  info->job = fmt::format("{}/{}", variables.text_or("TORCHELASTIC_RUN_ID", "none"),
                          variables.text_or("TORCHELASTIC_RESTART_COUNT", "0"));
  return info;
}

std::string parent_job() {
  return fmt::format("parent-{}", ::getppid());
}

std::optional<RankInfo> read_open_mpi(const Variables& variables) {
  auto info = read_place(variables, Launcher::open_mpi, "OMPI_COMM_WORLD_RANK", {"OMPI_COMM_WORLD_SIZE"},
                         "OMPI_COMM_WORLD_LOCAL_RANK");
  if (!info) return info;
  info->job = variables.text_or("PMIX_NAMESPACE", variables.text_or("OMPI_MCA_orte_ess_jobid", parent_job()));
  if (read_address(variables, *info)) return info;
  info->rendezvous = Rendezvous::local_socket;
  const auto local_size = variables.number("OMPI_COMM_WORLD_LOCAL_SIZE");
  if (local_size && *local_size != info->world_size) {
    fail_input(
        "mpirun started {} of {} ranks on this host and tells the ranks no address; give one: mpirun -x "
        "MASTER_ADDR=<host of rank 0> -x MASTER_PORT=<free port> ...",
        *local_size, info->world_size);
  }
  return info;
}

std::optional<RankInfo> read_mpich(const Variables& variables) {
  auto info = read_place(variables, Launcher::mpich, "PMI_RANK", {"PMI_SIZE"}, "MPI_LOCALRANKID");
  if (!info) return info;
  info->job = variables.text_or("PMI_JOBID", variables.text_or("PMI_ID_JOB", parent_job()));
  if (read_address(variables, *info)) return info;
  info->rendezvous = Rendezvous::local_socket;
  const auto local_size = variables.number("MPI_LOCALNRANKS");
  if (local_size && *local_size != info->world_size) {
    fail_input(
        "mpirun started {} of {} ranks on this host and tells the ranks no address; give one: mpirun -genv MASTER_ADDR "
        "<host of rank 0> -genv MASTER_PORT <free port> ...",
        *local_size, info->world_size);
  }
  return info;
}

/// The first host of "gpu[07-09,12],login1" is gpu07.
std::string first_host(const std::string& list) {
  const std::size_t end = list.find_first_of(",[");
  if (end == std::string::npos || list[end] == ',') return list.substr(0, end);
  const std::size_t number_end = list.find_first_of(",-]", end);
  return list.substr(0, end) + list.substr(end + 1, number_end - end - 1);
}

/// A batch script and an interactive shell of Slurm have SLURM_PROCID too, but are no step that srun started.
bool is_srun_step(const Variables& variables) {
  constexpr std::int64_t kFirstSpecialStep = 0xFFFFFFF0;
  const auto step = variables.number("SLURM_STEP_ID");
  return step && *step < kFirstSpecialStep;
}

std::optional<RankInfo> read_slurm(const Variables& variables) {
  if (!is_srun_step(variables)) return std::nullopt;
  auto info =
      read_place(variables, Launcher::slurm, "SLURM_PROCID", {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}, "SLURM_LOCALID");
  if (!info) return info;
  const std::int64_t job = variables.number("SLURM_JOB_ID").value_or(0);
  info->job = fmt::format("slurm-{}.{}", job, *variables.number("SLURM_STEP_ID"));
  if (read_address(variables, *info)) return info;
  info->rendezvous = Rendezvous::local_socket;
  const std::int64_t hosts =
      variables.number("SLURM_STEP_NUM_NODES").value_or(variables.number("SLURM_NNODES").value_or(1));
  if (hosts == 1) return info;
  const std::string list = variables.text_or("SLURM_STEP_NODELIST", variables.text_or("SLURM_JOB_NODELIST", ""));
  if (list.empty()) {
    fail_input("srun started ranks on {} hosts, but names none (SLURM_STEP_NODELIST); set MASTER_ADDR and MASTER_PORT",
               hosts);
  }
  constexpr std::int64_t kFirstPort = 20000;
  constexpr std::int64_t kPorts = 10000;
  info->rendezvous = Rendezvous::tcp;
  info->address = first_host(list);
  info->port = static_cast<int>(kFirstPort + job % kPorts);
  return info;
}

/// Two launchers that are both at work must agree, unless the inner one is known to start its own processes.
void check_agree(const RankInfo& one, const std::optional<RankInfo>& other) {
  if (!other || (one.rank == other->rank && one.world_size == other->world_size)) return;
  fail_input(
      "the environment contradicts itself: rank {} of {} by the variables of {}, rank {} of {} by those of {}; unset "
      "one "
      "set of them",
      one.rank, one.world_size, to_string(one.launcher), other->rank, other->world_size, to_string(other->launcher));
}

std::optional<RankInfo> read_any(const Variables& variables) {
  if (auto own = read_own(variables)) return own;
  const std::optional<RankInfo> open_mpi = read_open_mpi(variables);
  const std::optional<RankInfo> mpich = read_mpich(variables);
  const std::optional<RankInfo> slurm = read_slurm(variables);
  if (auto torchrun = read_torchrun(variables)) {
    if (!variables.has("TORCHELASTIC_RUN_ID")) {  // set by hand, perhaps within mpirun
      for (const auto& other : {open_mpi, mpich, slurm}) check_agree(*torchrun, other);
    }
    return torchrun;
  }
  if (open_mpi) return open_mpi;
  if (mpich && slurm && mpich->rank == slurm->rank && mpich->world_size == slurm->world_size) return slurm;
  return mpich ? mpich : slurm;
}

}  // namespace

std::string_view to_string(Launcher launcher) {
  switch (launcher) {
    case Launcher::none:
      return "";
    case Launcher::own:
      return "the own launcher";
    case Launcher::torchrun:
      return "torchrun";
    case Launcher::open_mpi:
      return "mpirun (Open MPI)";
    case Launcher::mpich:
      return "mpirun (MPICH)";
    case Launcher::slurm:
      return "srun";
  }
  return "";
}

std::optional<std::string> environment_variable(std::string_view name) {
  const char* value = std::getenv(std::string(name).c_str());
  if (value == nullptr) return std::nullopt;
  return value;
}

RankInfo read_rank_info(const ReadVariable& variable) {
  RankInfo info = read_any(Variables(variable)).value_or(RankInfo{});
  if (info.world_size == 1) info.rendezvous = Rendezvous::none;
  return info;
}

}  // namespace qshard
