#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/launch/rank_identity.h"
#include "core/launch/rank_link_options.h"
#include "core/launch/socket.h"

namespace qshard {

/// A thread that watches the other ranks over connections of its own: see RankLink, which it serves. It only waits for
/// these connections, so that nothing that hangs elsewhere in the process can stop it.
class RankWatch {
 public:
  /// `sockets`: index = rank, closed for `rank` itself.
  RankWatch(int rank, std::vector<RankIdentity> ranks, std::vector<Socket> sockets, const RankLinkOptions& options);
  RankWatch(const RankWatch&) = delete;
  RankWatch& operator=(const RankWatch&) = delete;
  /// Says goodbye to the others, unless there is a failure, and ends the thread.
  ~RankWatch();

  void set_activity(std::string_view activity);

  [[nodiscard]] std::optional<RankFailure> failure() const;
  /// Waits for a failure, at most this long.
  std::optional<RankFailure> wait_for_failure(std::chrono::milliseconds limit);
  /// Readable once there is a failure.
  [[nodiscard]] int failure_descriptor() const { return failed_.descriptor(); }

  /// Sets this rank's own failure, unless there is one already, and returns once the others are told.
  void tell_failure(ExitCode code, std::string_view message);

  /// The rank has said goodbye.
  [[nodiscard]] bool has_left(int rank) const;

 private:
  enum class Sign : std::uint8_t { alive, goodbye, failure };

  /// What the thread knows of one other rank.
  struct Peer {
    Socket socket;
    SteadyTime heard;
    std::string activity;
    std::vector<std::byte> received;  // not yet a whole message
    std::vector<std::byte> unsent;
  };

  void run();
  void wait_for_events(SteadyTime until);
  void receive(int rank);
  bool take_message(int rank);
  void send_to_all(const std::vector<std::byte>& message);
  void flush(Peer& peer);
  void check_silence();
  void set_failure(RankFailure failure);
  void end_if_due();
  void wake();
  [[nodiscard]] std::vector<std::byte> alive_message() const;
  static std::vector<std::byte> failure_message(const RankFailure& failure);

  const int rank_;
  const std::vector<RankIdentity> ranks_;
  const RankLinkOptions options_;
  std::vector<Peer> peers_;  // the thread's own
  Socket woken_;             // eventfd: the thread has something to look at
  Socket failed_;            // eventfd: there is a failure

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::string activity_;
  bool activity_sent_ = true;
  std::vector<bool> left_;
  std::optional<RankFailure> failure_;
  SteadyTime end_at_;  // of the process, once there is a failure
  bool failure_sent_ = false;
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace qshard
