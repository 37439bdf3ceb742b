#include "core/launch/rank_watch.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/launch/byte_message.h"

namespace qshard {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kHeader = sizeof(std::uint8_t) + sizeof(std::uint32_t);
constexpr std::uint32_t kLongestMessage = 1 << 20;
constexpr std::size_t kMostUnsent = 1 << 16;

Socket make_event() {
  return Socket(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

void raise(const Socket& event) {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t count = ::write(event.descriptor(), &one, sizeof(one));
}

void clear(const Socket& event) {
  std::uint64_t ignored = 0;
  [[maybe_unused]] const ssize_t count = ::read(event.descriptor(), &ignored, sizeof(ignored));
}

std::vector<std::byte> frame(std::uint8_t sign, const ByteWriter& payload) {
  ByteWriter message;
  message.number(sign).number(static_cast<std::uint32_t>(payload.bytes().size())).raw(payload.bytes());
  return message.bytes();
}

}  // namespace

RankWatch::RankWatch(int rank, std::vector<RankIdentity> ranks, std::vector<Socket> sockets,
                     const RankLinkOptions& options)
    : rank_(rank), ranks_(std::move(ranks)), options_(options), woken_(make_event()), failed_(make_event()) {
  for (Socket& socket : sockets) peers_.push_back({std::move(socket), steady_clock::now(), "", {}, {}});
  left_.resize(peers_.size());
  thread_ = std::thread([this] { run(); });
}

RankWatch::~RankWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake();
  thread_.join();
}

void RankWatch::wake() {
  raise(woken_);
}

void RankWatch::set_activity(std::string_view activity) {
  {
    const std::lock_guard lock(mutex_);
    activity_ = activity;
    activity_sent_ = false;
  }
  wake();
}

std::optional<RankFailure> RankWatch::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

std::optional<RankFailure> RankWatch::wait_for_failure(milliseconds limit) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, limit, [this] { return failure_.has_value(); });
  return failure_;
}

bool RankWatch::has_left(int rank) const {
  const std::lock_guard lock(mutex_);
  return left_[static_cast<std::size_t>(rank)];
}

void RankWatch::set_failure(RankFailure failure) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = std::move(failure);
    end_at_ = steady_clock::now() + options_.unwind_limit;
  }
  changed_.notify_all();
  raise(failed_);
}

void RankWatch::tell_failure(ExitCode code, std::string_view message) {
  const std::string who = describe(rank_, ranks_[static_cast<std::size_t>(rank_)]);
  set_failure({rank_, code, fmt::format("{}: {}", who, message)});
  wake();
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, options_.unwind_limit, [this] { return failure_sent_; });
}

std::vector<std::byte> RankWatch::alive_message() const {
  ByteWriter payload;
  payload.text(activity_);
  return frame(static_cast<std::uint8_t>(Sign::alive), payload);
}

std::vector<std::byte> RankWatch::failure_message(const RankFailure& failure) {
  ByteWriter payload;
  payload.number(failure.rank).number(failure.code).text(failure.message);
  return frame(static_cast<std::uint8_t>(Sign::failure), payload);
}

void RankWatch::run() {
  SteadyTime next_sign = steady_clock::now();
  while (true) {
    std::vector<std::byte> sign;
    std::optional<std::vector<std::byte>> failure;
    bool stopping = false;
    {
      const std::lock_guard lock(mutex_);
      if (!activity_sent_ || steady_clock::now() >= next_sign) {
        sign = alive_message();
        activity_sent_ = true;
        next_sign = steady_clock::now() + options_.heartbeat_interval;
      }
      if (failure_ && !failure_sent_) failure = failure_message(*failure_);
      stopping = stopping_;
    }
    if (!sign.empty()) send_to_all(sign);
    if (failure) {
      send_to_all(*failure);
      const std::lock_guard lock(mutex_);
      failure_sent_ = true;
      changed_.notify_all();
    }
    if (stopping) break;
    wait_for_events(next_sign);
    check_silence();
    end_if_due();
  }
  if (!failure()) send_to_all(frame(static_cast<std::uint8_t>(Sign::goodbye), {}));
  for (const Peer& peer : peers_) {
    if (peer.socket.is_open()) ::shutdown(peer.socket.descriptor(), SHUT_WR);
  }
}

void RankWatch::wait_for_events(SteadyTime until) {
  std::vector<pollfd> descriptors{{woken_.descriptor(), POLLIN, 0}};
  std::vector<int> ranks{rank_};
  for (std::size_t rank = 0; rank < peers_.size(); ++rank) {
    if (!peers_[rank].socket.is_open()) continue;
    const int events = POLLIN | (peers_[rank].unsent.empty() ? 0 : POLLOUT);
    descriptors.push_back({peers_[rank].socket.descriptor(), static_cast<short>(events), 0});
    ranks.push_back(static_cast<int>(rank));
  }
  {
    const std::lock_guard lock(mutex_);
    if (failure_) until = std::min(until, end_at_);
  }
  ::poll(descriptors.data(), descriptors.size(), milliseconds_until(until));
  // This process was stopped for a while (Ctrl-Z, a frozen container): the others were silent because it did not
  // listen.
  const bool was_stopped = steady_clock::now() > until + options_.silence_limit / 4;
  clear(woken_);
  for (std::size_t i = 1; i < descriptors.size(); ++i) {
    Peer& peer = peers_[static_cast<std::size_t>(ranks[i])];
    if (was_stopped) peer.heard = steady_clock::now();
    if ((descriptors[i].revents & POLLOUT) != 0) flush(peer);
    if ((descriptors[i].revents & ~POLLOUT) != 0) receive(ranks[i]);
  }
}

void RankWatch::receive(int rank) {
  Peer& peer = peers_[static_cast<std::size_t>(rank)];
  bool ended = false;
  while (true) {
    std::byte buffer[4096];
    const ssize_t count = ::recv(peer.socket.descriptor(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (count > 0) {
      peer.received.insert(peer.received.end(), buffer, buffer + count);
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    ended = count == 0 || errno != EAGAIN;
    break;
  }
  while (take_message(rank)) {
  }
  if (!ended) return;
  peer.socket.close();
  if (has_left(rank)) return;
  const std::string doing = peer.activity.empty() ? "" : " during " + peer.activity;
  set_failure({rank, ExitCode::rank_failed,
               fmt::format("{} ended{} without a goodbye: it was killed or crashed, or its connection broke",
                           describe(rank, ranks_[static_cast<std::size_t>(rank)]), doing)});
}

bool RankWatch::take_message(int rank) {
  Peer& peer = peers_[static_cast<std::size_t>(rank)];
  if (peer.received.size() < kHeader) return false;
  ByteReader header(std::span(peer.received).first(kHeader));
  const auto sign = header.number<Sign>();
  const auto size = header.number<std::uint32_t>();
  if (size <= kLongestMessage && peer.received.size() < kHeader + size) return false;
  ByteReader payload(
      std::span(peer.received).subspan(kHeader, std::min<std::size_t>(size, peer.received.size() - kHeader)));
  peer.heard = steady_clock::now();
  if (sign == Sign::alive) {
    peer.activity = payload.text();
  } else if (sign == Sign::goodbye) {
    const std::lock_guard lock(mutex_);
    left_[static_cast<std::size_t>(rank)] = true;
  } else if (sign == Sign::failure) {
    const int from = payload.number<int>();
    const auto code = payload.number<ExitCode>();
    set_failure({from, code, payload.text()});
  }
  const auto used = static_cast<std::ptrdiff_t>(kHeader + std::min<std::size_t>(size, peer.received.size() - kHeader));
  peer.received.erase(peer.received.begin(), peer.received.begin() + used);
  return true;
}

void RankWatch::send_to_all(const std::vector<std::byte>& message) {
  for (Peer& peer : peers_) {
    // A peer that reads nothing is silent too, and will be found out by that.
    if (!peer.socket.is_open() || peer.unsent.size() > kMostUnsent) continue;
    peer.unsent.insert(peer.unsent.end(), message.begin(), message.end());
    flush(peer);
  }
}

void RankWatch::flush(Peer& peer) {
  while (!peer.unsent.empty()) {
    const ssize_t count =
        ::send(peer.socket.descriptor(), peer.unsent.data(), peer.unsent.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count <= 0) return;  // later, or receive() will see the end
    peer.unsent.erase(peer.unsent.begin(), peer.unsent.begin() + count);
  }
}

void RankWatch::check_silence() {
  for (std::size_t rank = 0; rank < peers_.size(); ++rank) {
    const Peer& peer = peers_[rank];
    if (!peer.socket.is_open() || steady_clock::now() - peer.heard <= options_.silence_limit) continue;
    if (has_left(static_cast<int>(rank))) continue;
    const std::string doing = peer.activity.empty() ? "" : ", last heard during " + peer.activity;
    set_failure({static_cast<int>(rank), ExitCode::rank_failed,
                 fmt::format("{} has given no sign of life for {} s{}: it hangs, or its host or network is down",
                             describe(static_cast<int>(rank), ranks_[rank]),
                             std::chrono::duration_cast<std::chrono::seconds>(options_.silence_limit).count(), doing)});
  }
}

void RankWatch::end_if_due() {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_ || !failure_sent_ || !options_.end_process || steady_clock::now() < end_at_) return;
  }
  // The main thread hangs, or works on; nothing of it is waited for.
  const std::string line = fmt::format("qshard: error: rank {}: {}\n", rank_, failure_->message);
  [[maybe_unused]] const ssize_t count = ::write(STDERR_FILENO, line.data(), line.size());
  ::_exit(static_cast<int>(failure_->code));
}

}  // namespace qshard
