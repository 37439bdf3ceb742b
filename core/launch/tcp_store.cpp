#include "core/launch/tcp_store.h"

#include <chrono>

#include "core/base/error.h"
#include "core/launch/byte_message.h"

namespace qshard {
namespace {

enum Request : std::uint8_t { kValidate = 0, kSet = 1, kGet = 3, kWait = 6, kPing = 13 };

constexpr std::uint32_t kMagic = 0x3C85F7CE;
constexpr std::uint32_t kNonce = 0x51534844;
constexpr std::chrono::seconds kAnswerLimit{5};

ByteWriter request(Request what) {
  ByteWriter message;
  message.number(static_cast<std::uint8_t>(what));
  return message;
}

}  // namespace

TcpStore TcpStore::connect(const SocketAddress& address, SteadyTime deadline) {
  TcpStore store(connect_to(address, deadline), address);
  ByteWriter hello = request(kValidate).number(kMagic);
  hello.number(static_cast<std::uint8_t>(kPing)).number(kNonce);
  const SteadyTime limit = std::min(deadline, std::chrono::steady_clock::now() + kAnswerLimit);
  std::uint32_t answer = 0;
  const bool answered = send_all(store.socket_, hello.bytes(), limit) &&
                        receive_all(store.socket_, std::as_writable_bytes(std::span(&answer, 1)), limit);
  if (!answered || answer != kNonce) {
    fail(
        ExitCode::rank_failed,
        "{} does not answer as the store of torchrun does (TORCHELASTIC_USE_AGENT_STORE is True); PyTorch 2.1 or later "
        "is needed, and MASTER_ADDR and MASTER_PORT must be those that torchrun set",
        to_string(address));
  }
  return store;
}

void TcpStore::send(const ByteWriter& message, SteadyTime deadline) {
  if (send_all(socket_, message.bytes(), deadline)) return;
  fail(ExitCode::rank_failed, "torchrun's store at {} is gone", to_string(address_));
}

void TcpStore::receive(std::span<std::byte> bytes, SteadyTime deadline) {
  if (receive_all(socket_, bytes, deadline)) return;
  fail(ExitCode::rank_failed, "torchrun's store at {} gives no answer", to_string(address_));
}

void TcpStore::set(std::string_view key, std::string_view value) {
  send(request(kSet).text(key).text(value), std::chrono::steady_clock::now() + kAnswerLimit);
}

std::string TcpStore::wait_and_get(std::string_view key, SteadyTime deadline) {
  send(request(kWait).number(std::uint64_t{1}).text(key), deadline);
  std::uint8_t there = 1;
  receive(std::as_writable_bytes(std::span(&there, 1)), deadline);
  send(request(kGet).text(key), deadline);
  std::uint64_t size = 0;
  receive(std::as_writable_bytes(std::span(&size, 1)), deadline);
  constexpr std::uint64_t kLongest = 1 << 20;
  if (there != 0 || size > kLongest) {
    fail(ExitCode::rank_failed, "torchrun's store at {} gives no usable answer for {}", to_string(address_), key);
  }
  std::string value(size, '\0');
  receive(std::as_writable_bytes(std::span(value)), deadline);
  return value;
}

}  // namespace qshard
