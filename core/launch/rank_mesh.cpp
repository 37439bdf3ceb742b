#include "core/launch/rank_mesh.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/launch/byte_message.h"
#include "core/launch/tcp_store.h"

namespace qshard {
namespace {

constexpr std::uint64_t kMagic = 0x3130'6472'6168'7371;  // "qshard01": the protocol's version too
constexpr std::uint32_t kLongestMessage = 1 << 20;
constexpr std::chrono::seconds kHelloLimit{5};  // for a connection to say who it is
constexpr std::chrono::seconds kLateLimit{2};   // for ranks that come after the meeting has failed

enum class Channel : std::uint8_t { data, watch };

/// The first message on each connection.
struct Hello {
  Channel channel = Channel::data;
  int world_size = 0;
  int rank = 0;
  std::string job;
  std::string version;
  int port = 0;  // where the rank listens; 0 with local sockets
  RankIdentity identity;
};

bool send_message(const Socket& socket, const ByteWriter& message, SteadyTime deadline) {
  ByteWriter framed;
  framed.number(static_cast<std::uint32_t>(message.bytes().size())).raw(message.bytes());
  return send_all(socket, framed.bytes(), deadline);
}

std::optional<std::vector<std::byte>> receive_message(const Socket& socket, SteadyTime deadline) {
  std::uint32_t size = 0;
  if (!receive_all(socket, std::as_writable_bytes(std::span(&size, 1)), deadline)) return std::nullopt;
  if (size > kLongestMessage) return std::nullopt;
  std::vector<std::byte> bytes(size);
  if (!receive_all(socket, bytes, deadline)) return std::nullopt;
  return bytes;
}

ByteWriter pack(const Hello& hello) {
  ByteWriter message;
  message.number(kMagic).number(hello.channel).number(hello.world_size).number(hello.rank);
  message.text(hello.job).text(hello.version).number(hello.port);
  message.text(hello.identity.host).text(hello.identity.host_id).number(hello.identity.pid);
  return message;
}

/// Empty for whatever is no rank's hello.
std::optional<Hello> receive_hello(const Socket& socket) {
  const auto bytes = receive_message(socket, std::chrono::steady_clock::now() + kHelloLimit);
  if (!bytes) return std::nullopt;
  ByteReader reader(*bytes);
  if (reader.number<std::uint64_t>() != kMagic) return std::nullopt;
  Hello hello;
  hello.channel = reader.number<Channel>();
  hello.world_size = reader.number<int>();
  hello.rank = reader.number<int>();
  hello.job = reader.text();
  hello.version = reader.text();
  hello.port = reader.number<int>();
  hello.identity.host = reader.text();
  hello.identity.host_id = reader.text();
  hello.identity.pid = reader.number<std::int64_t>();
  if (!reader.complete()) return std::nullopt;
  return hello;
}

/// Where a rank listens, as rank 0 tells the others; an empty host means where rank 0 itself was reached.
struct Place {
  std::string host;
  int port = 0;
};

/// The job's meeting, seen from one rank.
class Meeting {
 public:
  Meeting(const RankInfo& info, std::string_view version, SteadyTime deadline)
      : info_(info), version_(version), deadline_(deadline), size_(static_cast<std::size_t>(info.world_size)) {
    mesh_.data.resize(size_);
    mesh_.watch.resize(size_);
    mesh_.ranks.resize(size_);
    places_.resize(size_);
  }

  RankMesh run() {
    if (info_.rank == 0) {
      listen_as_first();
      gather_hellos();
      welcome_all();
    } else {
      join_first();
    }
    connect_below();
    accept_above();
    return std::move(mesh_);
  }

 private:
  [[nodiscard]] bool local() const { return info_.rendezvous == Rendezvous::local_socket; }

  /// Jobs of other users and other jobs of this one have other names.
  [[nodiscard]] SocketAddress local_address(int rank) const {
    return {"", 0, fmt::format("qshard-{}-{}-{}", ::geteuid(), info_.job, rank)};
  }
  [[nodiscard]] std::string store_key() const { return fmt::format("/qshard/{}/rank0", info_.job); }

  void listen_as_first() {
    if (local()) {
      listener_ = listen_at(local_address(0));
    } else if (info_.rendezvous == Rendezvous::tcp) {
      const bool loopback = info_.address == "localhost" || is_loopback(info_.address);
      listener_ = listen_at({loopback ? info_.address : "", info_.port, ""});
    } else {
      TcpStore store = TcpStore::connect({info_.address, info_.port, ""}, deadline_);
      listener_ = listen_at({});
      const std::string ip = store.own_ip();
      // A loopback address means nothing to other hosts; the name by which torchrun calls this host does.
      const std::string& host = is_loopback(ip) ? info_.address : ip;
      store.set(store_key(), fmt::format("{} {}", host, listening_port(listener_)));
    }
  }

  [[nodiscard]] SocketAddress address_of_first() const {
    if (local()) return local_address(0);
    if (info_.rendezvous == Rendezvous::tcp) return {info_.address, info_.port, ""};
    TcpStore store = TcpStore::connect({info_.address, info_.port, ""}, deadline_);
    const std::string value = store.wait_and_get(store_key(), deadline_);
    const std::size_t space = value.find(' ');
    SocketAddress address{value.substr(0, space), 0, ""};
    if (space != std::string::npos) {
      std::from_chars(value.data() + space + 1, value.data() + value.size(), address.port);
    }
    return address;
  }

  /// Throws for what rank 0 cannot accept from a rank of its own job.
  void check(const Hello& hello) const {
    const std::string who = describe(hello.rank, hello.identity);
    if (hello.world_size != info_.world_size) {
      fail(ExitCode::rank_failed, "{} counts {} ranks, but rank 0 counts {}; start all of them with one command", who,
           hello.world_size, info_.world_size);
    }
    if (hello.version != version_) {
      fail(ExitCode::rank_failed, "{} runs version {}, but rank 0 runs {}; install one version on all hosts", who,
           hello.version, version_);
    }
    if (hello.rank < 0 || hello.rank >= info_.world_size || hello.rank == 0 || mesh_.data[at(hello.rank)].is_open()) {
      fail(ExitCode::rank_failed, "two processes claim rank {}: {} and {}; is the job started twice?", hello.rank,
           describe(hello.rank, mesh_.ranks[at(std::clamp(hello.rank, 0, info_.world_size - 1))]), who);
    }
  }

  static std::size_t at(int rank) { return static_cast<std::size_t>(rank); }

  [[nodiscard]] std::vector<int> missing() const {
    std::vector<int> ranks;
    for (int rank = 1; rank < info_.world_size; ++rank) {
      if (!mesh_.data[at(rank)].is_open()) ranks.push_back(rank);
    }
    return ranks;
  }

  void gather_hellos() {
    mesh_.ranks[0] = own_identity();
    try {
      while (!missing().empty()) {
        Socket socket = accept_from(listener_, deadline_);
        if (!socket.is_open()) {
          fail(ExitCode::rank_failed,
               "rank 0 waited in vain for rank{} {}; was it started, and can it reach this host?",
               missing().size() == 1 ? "" : "s", fmt::join(missing(), ", "));
        }
        const auto hello = is_own_user(socket) ? receive_hello(socket) : std::nullopt;
        if (!hello || hello->job != info_.job) continue;
        late_ = std::move(socket);
        check(*hello);
        const std::string ip = peer_ip(late_);
        places_[at(hello->rank)] = {is_loopback(ip) || ip == own_ip(late_) ? "" : ip, hello->port};
        mesh_.ranks[at(hello->rank)] = hello->identity;
        mesh_.data[at(hello->rank)] = std::move(late_);
      }
    } catch (const Error& error) {
      refuse_all(error);
      throw;
    }
  }

  void refuse_all(const Error& error) {
    ByteWriter message;
    message.number(static_cast<std::uint8_t>(error.code())).text(error.what());
    const SteadyTime soon = std::chrono::steady_clock::now() + kLateLimit;
    if (late_.is_open()) send_message(late_, message, soon);
    for (const Socket& socket : mesh_.data) {
      if (socket.is_open()) send_message(socket, message, soon);
    }
    // Those that come a little later are to know the reason too.
    for (Socket late = accept_from(listener_, soon); late.is_open(); late = accept_from(listener_, soon)) {
      if (receive_hello(late)) send_message(late, message, soon);
    }
  }

  void welcome_all() {
    ByteWriter message;
    message.number(std::uint8_t{0});
    for (std::size_t rank = 0; rank < size_; ++rank) {
      const RankIdentity& who = mesh_.ranks[rank];
      message.text(places_[rank].host).number(places_[rank].port);
      message.text(who.host).text(who.host_id).number(who.pid);
    }
    for (std::size_t rank = 1; rank < size_; ++rank) {
      if (!send_message(mesh_.data[rank], message, deadline_)) fail_gone(static_cast<int>(rank));
    }
  }

  [[noreturn]] void fail_gone(int rank) const {
    fail(ExitCode::rank_failed, "{} ended while the ranks were connecting; see its own message",
         describe(rank, mesh_.ranks[at(rank)]));
  }

  [[nodiscard]] Hello own_hello(Channel channel) const {
    const int port = local() ? 0 : listening_port(listener_);
    return {channel, info_.world_size, info_.rank, info_.job, version_, port, own_identity()};
  }

  Socket greet(const SocketAddress& address, Channel channel) const {
    Socket socket = connect_to(address, deadline_);
    if (!is_own_user(socket)) fail(ExitCode::rank_failed, "another user listens at {}", to_string(address));
    send_message(socket, pack(own_hello(channel)), deadline_);
    return socket;
  }

  void join_first() {
    if (!local()) listener_ = listen_at({});
    first_ = address_of_first();
    mesh_.data[0] = greet(first_, Channel::data);
    const auto answer = receive_message(mesh_.data[0], deadline_);
    if (!answer) {
      fail(ExitCode::rank_failed,
           "rank {} reached {}, but rank 0 of the same job did not answer in time; see its message", info_.rank,
           to_string(first_));
    }
    ByteReader reader(*answer);
    const auto refused = reader.number<std::uint8_t>();
    if (refused != 0) throw Error(static_cast<ExitCode>(refused), reader.text());
    if (local())
      listener_ = listen_at(local_address(info_.rank));  // the name is this rank's, as rank 0 has accepted it
    for (std::size_t rank = 0; rank < size_; ++rank) {
      places_[rank].host = reader.text();
      places_[rank].port = reader.number<int>();
      RankIdentity& who = mesh_.ranks[rank];
      who.host = reader.text();
      who.host_id = reader.text();
      who.pid = reader.number<std::int64_t>();
    }
  }

  [[nodiscard]] SocketAddress address_of(int rank) const {
    if (rank == 0) return first_;
    if (local()) return local_address(rank);
    const Place& place = places_[at(rank)];
    return {place.host.empty() ? peer_ip(mesh_.data[0]) : place.host, place.port, ""};
  }

  void connect_below() {
    for (int rank = 0; rank < info_.rank; ++rank) {
      if (rank > 0) mesh_.data[at(rank)] = greet(address_of(rank), Channel::data);
      mesh_.watch[at(rank)] = greet(address_of(rank), Channel::watch);
    }
  }

  void accept_above() {
    const int above = info_.world_size - 1 - info_.rank;
    for (int left = info_.rank == 0 ? above : 2 * above; left > 0;) {
      Socket socket = accept_from(listener_, deadline_);
      if (!socket.is_open()) {
        fail(ExitCode::rank_failed, "rank {} waited in vain for the ranks above it to connect; see their own messages",
             info_.rank);
      }
      const auto hello = is_own_user(socket) ? receive_hello(socket) : std::nullopt;
      if (!hello || hello->job != info_.job || hello->rank <= info_.rank || hello->rank >= info_.world_size) continue;
      Socket& place = (hello->channel == Channel::data ? mesh_.data : mesh_.watch)[at(hello->rank)];
      if (place.is_open()) continue;
      place = std::move(socket);
      --left;
    }
  }

  const RankInfo& info_;
  std::string version_;
  SteadyTime deadline_;
  std::size_t size_;
  Socket listener_;
  Socket late_;  // the connection being looked at
  SocketAddress first_;
  std::vector<Place> places_;
  RankMesh mesh_;
};

}  // namespace

RankMesh connect_ranks(const RankInfo& info, std::string_view version, SteadyTime deadline) {
  return Meeting(info, version, deadline).run();
}

}  // namespace qshard
