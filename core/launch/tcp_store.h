#pragma once

#include <string>
#include <string_view>

#include "core/launch/socket.h"

namespace qshard {

/// A client of the key-value store that torchrun's agent serves (torch.distributed.TCPStore, the protocol that it has
/// had since PyTorch 2.1). Numbers are little-endian, a text is its length (u64) and its bytes, a request begins with
/// one byte:
///   VALIDATE 0  u32 0x3C85F7CE, the first request; no answer
///   SET      1  key, value; no answer
///   GET      3  key; answer: value
///   WAIT     6  u64 count, keys; answer: u8 0 once all are there
///   PING     13 u32 nonce; answer: the same u32
class TcpStore {
 public:
  /// Connects and checks that a store answers. Throws Error(rank_failed) where none does until `deadline`.
  static TcpStore connect(const SocketAddress& address, SteadyTime deadline);

  /// Throws Error(rank_failed) where the store is gone.
  void set(std::string_view key, std::string_view value);

  /// Waits until the key is there. Throws Error(rank_failed) where it is not until `deadline`, or the store is gone.
  std::string wait_and_get(std::string_view key, SteadyTime deadline);

  /// The IP address by which this host reaches the store.
  [[nodiscard]] std::string own_ip() const { return qshard::own_ip(socket_); }

 private:
  TcpStore(Socket socket, const SocketAddress& address) : socket_(std::move(socket)), address_(address) {}

  void send(const class ByteWriter& message, SteadyTime deadline);
  void receive(std::span<std::byte> bytes, SteadyTime deadline);

  Socket socket_;
  SocketAddress address_;
};

}  // namespace qshard
