#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/launch/socket.h"

namespace qshard {

/// The store that torchrun's agent serves, as far as its clients here need it: VALIDATE 0, SET 1, GET 3, WAIT 6,
/// PING 13. One thread a client.
class TorchStore {
 public:
  TorchStore() : listener_(listen_at({"127.0.0.1", 0, ""})), thread_([this] { accept_clients(); }) {}
  ~TorchStore() {
    ending_ = true;
    changed_.notify_all();
    thread_.join();
    for (std::thread& client : clients_) client.join();
  }
  TorchStore(const TorchStore&) = delete;
  TorchStore& operator=(const TorchStore&) = delete;

  [[nodiscard]] int port() const { return listening_port(listener_); }

  void put(const std::string& key, const std::string& value) {
    const std::lock_guard lock(mutex_);
    values_[key] = value;
    changed_.notify_all();
  }
  std::vector<std::string> keys() {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> keys;
    for (const auto& [key, value] : values_) keys.push_back(key);
    return keys;
  }

 private:
  static SteadyTime soon() { return std::chrono::steady_clock::now() + std::chrono::milliseconds(100); }

  void accept_clients() {
    while (!ending_) {
      Socket client = accept_from(listener_, soon());
      if (!client.is_open()) continue;
      clients_.emplace_back([this, socket = std::move(client)] { serve(socket); });
    }
  }

  template <typename T>
  static T read(const Socket& socket) {
    T value{};
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    if (!receive_all(socket, std::as_writable_bytes(std::span(&value, 1)), limit)) throw std::runtime_error("gone");
    return value;
  }
  static std::string read_text(const Socket& socket) {
    std::string text(read<std::uint64_t>(socket), '\0');
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    receive_all(socket, std::as_writable_bytes(std::span(text)), limit);
    return text;
  }
  template <typename T>
  static void write(const Socket& socket, T value) {
    send_all(socket, std::as_bytes(std::span(&value, 1)), soon());
  }

  std::string wait_for(const std::string& key) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ending_ || values_.count(key) > 0; });
    return values_[key];
  }

  void serve(const Socket& socket) try {
    if (read<std::uint8_t>(socket) != 0 || read<std::uint32_t>(socket) != 0x3C85F7CE) return;
    while (true) {
      const auto request = read<std::uint8_t>(socket);
      if (request == 13) {
        write(socket, read<std::uint32_t>(socket));
      } else if (request == 1) {
        const std::string key = read_text(socket);
        put(key, read_text(socket));
      } else if (request == 6) {
        for (auto left = read<std::uint64_t>(socket); left > 0; --left) wait_for(read_text(socket));
        write(socket, std::uint8_t{0});
      } else if (request == 3) {
        const std::string value = wait_for(read_text(socket));
        write(socket, static_cast<std::uint64_t>(value.size()));
        send_all(socket, std::as_bytes(std::span(value)), soon());
      } else {
        return;
      }
    }
  } catch (const std::runtime_error&) {  // the client has ended
  }

  Socket listener_;
  std::atomic<bool> ending_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> values_;
  std::vector<std::thread> clients_;
  std::thread thread_;
};

}  // namespace qshard
