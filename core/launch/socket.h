#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace qshard {

using SteadyTime = std::chrono::steady_clock::time_point;

/// Where a socket listens: a host and port (TCP), or a name in Linux's abstract Unix namespace, which is gone with the
/// process that listens there.
struct SocketAddress {
  std::string host;  // name or IP address; empty with `name`. For listening: empty means every interface.
  int port = 0;      // for listening: 0 takes a free one
  std::string name;

  [[nodiscard]] bool is_local() const { return !name.empty(); }
};

/// "host:port", or "the local socket <name>"; for messages.
std::string to_string(const SocketAddress& address);

/// A stream socket, closed with the object. Programs that the process starts do not inherit it.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept;
  Socket& operator=(Socket&& other) noexcept;
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket();

  [[nodiscard]] int descriptor() const { return descriptor_; }
  [[nodiscard]] bool is_open() const { return descriptor_ >= 0; }
  void close();

 private:
  int descriptor_ = -1;
};

/// Listens at the address. Throws Error(bad_input) where that fails: in use, no such host.
Socket listen_at(const SocketAddress& address);

/// The port that a TCP socket listens on.
int listening_port(const Socket& socket);

/// Connects, trying again until `deadline` while nobody listens there. Throws Error(rank_failed) with the last reason.
Socket connect_to(const SocketAddress& address, SteadyTime deadline);

/// The next connection; a closed Socket where none comes until `deadline`.
Socket accept_from(const Socket& listener, SteadyTime deadline);

/// The IP address of this end, and of the other; "local" for a Unix socket.
std::string own_ip(const Socket& socket);
std::string peer_ip(const Socket& socket);
/// 127.0.0.0/8, ::1, or a Unix socket.
bool is_loopback(std::string_view ip);

/// False where the other end is a local process of another user. Over TCP it cannot be told, and is true.
bool is_own_user(const Socket& socket);

/// Sends or receives all bytes; false where the connection ended or `deadline` passed.
bool send_all(const Socket& socket, std::span<const std::byte> bytes, SteadyTime deadline);
bool receive_all(const Socket& socket, std::span<std::byte> bytes, SteadyTime deadline);

/// Milliseconds until `deadline` as poll() takes them: 0 once it has passed.
int milliseconds_until(SteadyTime deadline);

}  // namespace qshard
