#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/launch/rank_watch.h"
#include "core/launch/socket.h"

namespace qshard {

/// Which collective a message belongs to.
enum class Collective : std::uint32_t { barrier = 1, all_gather, broadcast, exchange };

/// What one rank sends to and receives from another in one collective.
struct PeerTraffic {
  int rank = 0;
  bool sends = false;
  std::span<const std::byte> outgoing{};
  bool receives = false;
  std::span<std::byte> incoming{};            // exactly this much, or
  std::vector<std::byte>* growing = nullptr;  // as much as there is
};

/// Moves messages over the data connections, sending and receiving at once on all of them, so that no two ranks wait
/// for each other's buffers. Each message says which collective it belongs to and how long it is.
class RankExchange {
 public:
  /// `sockets`: index = rank, closed for `rank` itself. `watch` must outlive this object.
  RankExchange(int rank, std::vector<Socket> sockets, RankWatch& watch);

  /// Throws the failure that the watch knows as Error, and Error(rank_failed) where a peer is in another collective or
  /// has left.
  void run(Collective collective, std::span<const PeerTraffic> traffic);

 private:
  struct Transfer;

  void move(std::vector<Transfer>& transfers);
  bool send_some(Transfer& transfer);
  bool receive_some(Transfer& transfer);
  void check_header(Transfer& transfer);
  [[noreturn]] void fail_lost(int rank);
  [[noreturn]] void fail_here(const std::string& message);

  int rank_;
  std::vector<Socket> sockets_;
  RankWatch* watch_;
  std::uint32_t sequence_ = 0;
  Collective collective_ = Collective::barrier;
};

}  // namespace qshard
