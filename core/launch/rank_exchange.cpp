#include "core/launch/rank_exchange.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include "core/base/error.h"

namespace qshard {
namespace {

/// In front of each message.
struct Header {
  Collective collective;
  std::uint32_t sequence;
  std::uint64_t size;
};

std::string_view to_string(Collective collective) {
  switch (collective) {
    case Collective::barrier:
      return "barrier";
    case Collective::all_gather:
      return "all-gather";
    case Collective::broadcast:
      return "broadcast";
    case Collective::exchange:
      return "exchange";
  }
  return "no collective";
}

}  // namespace

/// How far a peer's traffic has come.
struct RankExchange::Transfer {
  const PeerTraffic* traffic = nullptr;
  Header out{};
  Header in{};
  std::size_t sent = 0;      // header included
  std::size_t received = 0;  // header included
  std::span<std::byte> room;

  [[nodiscard]] bool sending() const { return traffic->sends && sent < sizeof(Header) + traffic->outgoing.size(); }
  [[nodiscard]] bool receiving() const {
    return traffic->receives && (received < sizeof(Header) || received < sizeof(Header) + room.size());
  }
};

RankExchange::RankExchange(int rank, std::vector<Socket> sockets, RankWatch& watch)
    : rank_(rank), sockets_(std::move(sockets)), watch_(&watch) {}

void RankExchange::run(Collective collective, std::span<const PeerTraffic> traffic) {
  collective_ = collective;
  ++sequence_;
  std::vector<Transfer> transfers;
  for (const PeerTraffic& peer : traffic) {
    Transfer& transfer = transfers.emplace_back();
    transfer.traffic = &peer;
    transfer.out = {collective, sequence_, peer.outgoing.size()};
  }
  move(transfers);
}

void RankExchange::move(std::vector<Transfer>& transfers) {
  while (true) {
    std::vector<pollfd> descriptors{{watch_->failure_descriptor(), POLLIN, 0}};
    std::vector<Transfer*> waiting{nullptr};
    for (Transfer& transfer : transfers) {
      const int events = (transfer.sending() ? POLLOUT : 0) | (transfer.receiving() ? POLLIN : 0);
      if (events == 0) continue;
      descriptors.push_back(
          {sockets_[static_cast<std::size_t>(transfer.traffic->rank)].descriptor(), static_cast<short>(events), 0});
      waiting.push_back(&transfer);
    }
    if (waiting.size() == 1) return;
    if (::poll(descriptors.data(), descriptors.size(), -1) < 0) continue;  // a signal came in between
    if (descriptors[0].revents != 0) {
      const RankFailure failure = *watch_->failure();
      throw Error(failure.code, failure.message);
    }
    for (std::size_t i = 1; i < waiting.size(); ++i) {
      Transfer& transfer = *waiting[i];
      const int ready = descriptors[i].revents;
      const bool broken = (ready & (POLLERR | POLLHUP)) != 0;
      const bool well = (!((ready & POLLOUT) != 0 && transfer.sending()) || send_some(transfer)) &&
                        (!(((ready & POLLIN) != 0 || broken) && transfer.receiving()) || receive_some(transfer)) &&
                        !(broken && transfer.sending());
      if (!well) fail_lost(transfer.traffic->rank);
    }
  }
}

bool RankExchange::send_some(Transfer& transfer) {
  const int descriptor = sockets_[static_cast<std::size_t>(transfer.traffic->rank)].descriptor();
  const std::span<const std::byte> body = transfer.traffic->outgoing;
  std::array<iovec, 2> parts{};
  const std::size_t of_header = std::min(transfer.sent, sizeof(Header));
  const std::size_t of_body = transfer.sent - of_header;
  parts[0] = {reinterpret_cast<char*>(&transfer.out) + of_header, sizeof(Header) - of_header};
  parts[1] = {const_cast<std::byte*>(body.data()) + of_body, body.size() - of_body};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  const ssize_t count = ::sendmsg(descriptor, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  transfer.sent += static_cast<std::size_t>(count);
  return true;
}

bool RankExchange::receive_some(Transfer& transfer) {
  const int descriptor = sockets_[static_cast<std::size_t>(transfer.traffic->rank)].descriptor();
  char* to = reinterpret_cast<char*>(&transfer.in) + transfer.received;
  std::size_t room = sizeof(Header) - transfer.received;
  if (transfer.received >= sizeof(Header)) {
    const std::size_t of_body = transfer.received - sizeof(Header);
    to = reinterpret_cast<char*>(transfer.room.data()) + of_body;
    room = transfer.room.size() - of_body;
  }
  const ssize_t count = ::recv(descriptor, to, room, MSG_DONTWAIT);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  if (count == 0) return false;
  transfer.received += static_cast<std::size_t>(count);
  if (transfer.received == sizeof(Header)) check_header(transfer);
  return true;
}

void RankExchange::check_header(Transfer& transfer) {
  const PeerTraffic& traffic = *transfer.traffic;
  const Header& in = transfer.in;
  if (in.collective != collective_ || in.sequence != sequence_) {
    fail_here(fmt::format("the ranks are out of step: rank {} is in {} {}, rank {} in {} {}", rank_,
                          to_string(collective_), sequence_, traffic.rank, to_string(in.collective), in.sequence));
  }
  if (traffic.growing != nullptr) {
    traffic.growing->resize(in.size);
    transfer.room = *traffic.growing;
  } else if (in.size == traffic.incoming.size()) {
    transfer.room = traffic.incoming;
  } else {
    fail_here(fmt::format("the ranks are out of step: rank {} sends {} bytes, but rank {} expects {}", traffic.rank,
                          in.size, rank_, traffic.incoming.size()));
  }
}

void RankExchange::fail_lost(int rank) {
  // The watch sees more: who died first, and during what.
  constexpr std::chrono::milliseconds kLimit{3'000};
  const bool left = watch_->has_left(rank);
  if (const auto failure = watch_->wait_for_failure(left ? std::chrono::milliseconds{0} : kLimit)) {
    throw Error(failure->code, failure->message);
  }
  fail_here(fmt::format("rank {} {} while rank {} still waits for it", rank,
                        left || watch_->has_left(rank) ? "ended its work" : "closed its connection", rank_));
}

void RankExchange::fail_here(const std::string& message) {
  watch_->tell_failure(ExitCode::rank_failed, message);
  throw Error(ExitCode::rank_failed, message);
}

}  // namespace qshard
