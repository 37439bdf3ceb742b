#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "core/launch/rank_identity.h"
#include "core/launch/rank_info.h"
#include "core/launch/rank_link_options.h"

namespace qshard {

/// Bytes for one rank, and room for the bytes of one rank.
struct Outgoing {
  int rank = 0;
  std::span<const std::byte> bytes;
};
struct Incoming {
  int rank = 0;
  std::span<std::byte> bytes;
};

/// The connection between the processes of a job, one rank each.
///
/// Why not MPI: mpirun, srun and torchrun start the processes and set variables; everything else a job needs is here,
/// so that one program runs under each of them, needs no library of theirs, and sees the death of a rank at once (a
/// process that is killed closes its connections), where MPI and NCCL wait. The reference moves its shards and
/// gradients over it. The CUDA engine uses the same link for what is small: rendezvous, barriers, exchange of handles,
/// losses and norms; weights never go over it there.
///
/// Each pair of ranks has two connections (TCP, or Unix sockets on one host): one for the collectives, used by one
/// thread at a time, and one for a watchdog thread. That thread makes no call that could wait for a GPU. It sends a
/// sign of life each heartbeat_interval. When a peer's connection closes without a goodbye, when a peer is silent for
/// silence_limit, or when a peer tells of an error, the failure is set, each waiting collective throws it, every other
/// rank is told, and after unwind_limit the watchdog prints the failure and ends the process with the failure's exit
/// code.
///
/// Collectives must be called by all ranks in the same order. All of them throw Error with the failure's code and
/// message once there is one, and Error(rank_failed) where the ranks disagree about which collective comes next.
class RankLink {
 public:
  /// Meets the other ranks and connects to each. With one rank there is no connection and no thread. Throws
  /// Error(rank_failed) naming the ranks that have not come in time, or where a peer has another version or world size
  /// or claims a rank that is taken; Error(bad_input) for an address that cannot be resolved or listened on.
  static RankLink connect(const RankInfo& info, const RankLinkOptions& options);

  RankLink(RankLink&& other) noexcept;
  RankLink& operator=(RankLink&& other) noexcept;
  RankLink(const RankLink&) = delete;
  RankLink& operator=(const RankLink&) = delete;
  /// Says goodbye; while an exception unwinds the stack, tells the others that this rank failed instead.
  ~RankLink();

  [[nodiscard]] int rank() const;
  [[nodiscard]] int world_size() const;
  [[nodiscard]] bool is_first() const { return rank() == 0; }
  /// Index = rank.
  [[nodiscard]] const std::vector<RankIdentity>& ranks() const;
  /// This rank's place among the ranks of its host: the launcher's word where it gave one, else counted; and their
  /// number.
  [[nodiscard]] int local_rank() const;
  [[nodiscard]] int local_world_size() const;

  /// Returns once every rank has called it.
  void barrier();

  /// Every rank's bytes in rank order, on every rank. Lengths may differ.
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> bytes);

  /// The bytes of rank `root`, on every rank; what the others give is not looked at.
  std::vector<std::byte> broadcast(std::span<const std::byte> bytes, int root);

  /// Sends and receives at once, at most one buffer to and one from each other rank, as large as they like. The peer
  /// must call exchange() with the matching buffers of the same size.
  void exchange(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming);

  /// True on every rank where it is true on one. For example: a signal asked one rank to stop after this step.
  bool any(bool mine);

  /// What this rank is doing from now on ("step 12", "saving checkpoint-12"); the others name it if this rank dies.
  void set_activity(std::string_view activity);

  /// The job's failure, if there is one. May be called from any thread; for loops that wait for something else.
  [[nodiscard]] std::optional<RankFailure> failure() const;
  /// Throws the failure as Error, if there is one.
  void check() const;

  /// Tells the others that this rank cannot go on; every process then ends with `code`. Once; later calls do nothing.
  void tell_failure(ExitCode code, std::string_view message);

 private:
  struct State;
  explicit RankLink(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

/// Runs `work`, and tells the other ranks of an exception before it unwinds any further. Objects whose destructors
/// could wait for another rank or a GPU belong outside `work`.
template <typename Work>
auto tell_failures(RankLink& link, const Work& work) {
  try {
    return work();
  } catch (const Error& error) {
    link.tell_failure(error.code(), error.what());
    throw;
  } catch (const std::bad_alloc&) {
    link.tell_failure(ExitCode::out_of_resources, "out of memory");
    throw;
  } catch (const std::exception& error) {
    link.tell_failure(ExitCode::bad_input, error.what());
    throw;
  }
}

}  // namespace qshard
