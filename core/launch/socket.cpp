#include "core/launch/socket.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/error.h"

namespace qshard {
namespace {

constexpr int kBacklog = 512;

/// A socket address in the system's form.
struct RawAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  [[nodiscard]] const sockaddr* data() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] sockaddr* data() { return reinterpret_cast<sockaddr*>(&storage); }
};

RawAddress abstract_address(const std::string& name) {
  RawAddress raw;
  auto& local = reinterpret_cast<sockaddr_un&>(raw.storage);
  local.sun_family = AF_UNIX;
  const std::size_t length = std::min(name.size(), sizeof(local.sun_path) - 1);  // after a leading zero byte
  std::memcpy(local.sun_path + 1, name.data(), length);
  raw.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  return raw;
}

/// Every IP address of the host; empty, with the reason in `error`, where there is none.
std::vector<RawAddress> resolve(const SocketAddress& address, bool passive, std::string& error) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = passive ? AI_PASSIVE : 0;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(address.port);
  const int status = getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(), port.c_str(), &hints, &found);
  if (status != 0) {
    error = gai_strerror(status);
    return {};
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  std::vector<RawAddress> addresses;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    RawAddress& raw = addresses.emplace_back();
    std::memcpy(&raw.storage, one->ai_addr, one->ai_addrlen);
    raw.size = one->ai_addrlen;
  }
  // "Every interface" as IPv6 takes IPv4 too; the other way round it does not.
  std::ranges::stable_sort(addresses, [passive](const RawAddress& a, const RawAddress& b) {
    return passive && a.storage.ss_family == AF_INET6 && b.storage.ss_family != AF_INET6;
  });
  return addresses;
}

Socket open_socket(int family) {
  return Socket(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

void set_option(const Socket& socket, int level, int option, int value) {
  setsockopt(socket.descriptor(), level, option, &value, sizeof(value));
}

bool wait_for(const Socket& socket, short events, SteadyTime deadline) {
  pollfd ready{socket.descriptor(), events, 0};
  while (true) {
    const int count = poll(&ready, 1, milliseconds_until(deadline));
    if (count > 0) return true;
    if (count == 0 || errno != EINTR) return false;
  }
}

/// 0, or errno.
int try_connect(const Socket& socket, const RawAddress& address, SteadyTime deadline) {
  if (connect(socket.descriptor(), address.data(), address.size) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  if (!wait_for(socket, POLLOUT, deadline)) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

int try_listen(const Socket& socket, const RawAddress& address) {
  if (!socket.is_open()) return errno;
  set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1);
  if (address.storage.ss_family == AF_INET6) set_option(socket, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (bind(socket.descriptor(), address.data(), address.size) != 0) return errno;
  return listen(socket.descriptor(), kBacklog) == 0 ? 0 : errno;
}

std::string ip_of(const RawAddress& raw) {
  if (raw.storage.ss_family == AF_UNIX) return "local";
  std::array<char, NI_MAXHOST> text{};
  getnameinfo(raw.data(), raw.size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST);
  const std::string ip = text.data();
  constexpr std::string_view kMapped = "::ffff:";  // IPv4 on a socket that takes both
  return ip.starts_with(kMapped) && ip.find('.') != std::string::npos ? ip.substr(kMapped.size()) : ip;
}

}  // namespace

std::string to_string(const SocketAddress& address) {
  if (address.is_local()) return "the local socket " + address.name;
  return fmt::format("{}:{}", address.host.empty() ? "*" : address.host, address.port);
}

Socket::Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

Socket::~Socket() {
  close();
}

void Socket::close() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

int milliseconds_until(SteadyTime deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 1'000'000'000));
}

Socket listen_at(const SocketAddress& address) {
  std::string reason;
  std::vector<RawAddress> candidates;
  if (address.is_local()) {
    candidates.push_back(abstract_address(address.name));
  } else {
    candidates = resolve(address, true, reason);
  }
  for (const RawAddress& candidate : candidates) {
    Socket socket = open_socket(candidate.storage.ss_family);
    const int error = try_listen(socket, candidate);
    if (error == 0) return socket;
    reason = std::strerror(error);
    if (error == EADDRINUSE) break;
  }
  fail_input(
      "cannot listen at {}: {}. Is another job or another process of this one there already? For TCP, MASTER_PORT "
      "names "
      "another port",
      to_string(address), reason);
}

int listening_port(const Socket& socket) {
  RawAddress raw;
  raw.size = sizeof(raw.storage);
  getsockname(socket.descriptor(), raw.data(), &raw.size);
  if (raw.storage.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(raw.storage).sin6_port);
  return ntohs(reinterpret_cast<const sockaddr_in&>(raw.storage).sin_port);
}

Socket connect_to(const SocketAddress& address, SteadyTime deadline) {
  constexpr std::chrono::milliseconds kPause{50};
  std::string reason;
  while (true) {
    std::vector<RawAddress> candidates;
    if (address.is_local()) {
      candidates.push_back(abstract_address(address.name));
    } else {
      candidates = resolve(address, false, reason);
    }
    for (const RawAddress& candidate : candidates) {
      Socket socket = open_socket(candidate.storage.ss_family);
      const int error = socket.is_open() ? try_connect(socket, candidate, deadline) : errno;
      if (error == 0) {
        if (!address.is_local()) set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
        return socket;
      }
      reason = std::strerror(error);
    }
    if (std::chrono::steady_clock::now() + kPause >= deadline) break;
    std::this_thread::sleep_for(kPause);
  }
  fail(ExitCode::rank_failed, "cannot connect to {}: {}", to_string(address), reason);
}

Socket accept_from(const Socket& listener, SteadyTime deadline) {
  while (wait_for(listener, POLLIN, deadline)) {
    Socket socket(accept4(listener.descriptor(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.is_open()) continue;  // it went away again
    set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
    return socket;
  }
  return Socket();
}

std::string own_ip(const Socket& socket) {
  RawAddress raw;
  raw.size = sizeof(raw.storage);
  getsockname(socket.descriptor(), raw.data(), &raw.size);
  return ip_of(raw);
}

std::string peer_ip(const Socket& socket) {
  RawAddress raw;
  raw.size = sizeof(raw.storage);
  getpeername(socket.descriptor(), raw.data(), &raw.size);
  return ip_of(raw);
}

bool is_loopback(std::string_view ip) {
  return ip == "local" || ip == "::1" || ip.starts_with("127.");
}

bool is_own_user(const Socket& socket) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (peer_ip(socket) != "local") return true;
  return getsockopt(socket.descriptor(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

bool send_all(const Socket& socket, std::span<const std::byte> bytes, SteadyTime deadline) {
  while (!bytes.empty()) {
    const ssize_t count = send(socket.descriptor(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN || !wait_for(socket, POLLOUT, deadline)) return false;
  }
  return true;
}

bool receive_all(const Socket& socket, std::span<std::byte> bytes, SteadyTime deadline) {
  while (!bytes.empty()) {
    const ssize_t count = recv(socket.descriptor(), bytes.data(), bytes.size(), 0);
    if (count > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      continue;
    }
    if (count == 0) return false;
    if (errno == EINTR) continue;
    if (errno != EAGAIN || !wait_for(socket, POLLIN, deadline)) return false;
  }
  return true;
}

}  // namespace qshard
