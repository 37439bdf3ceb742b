#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace qshard {

/// Puts numbers and texts one after the other: numbers as they lie in memory (all hosts of a job are little-endian),
/// a text as its length (u64) and its bytes.
class ByteWriter {
 public:
  template <typename T>
  requires std::is_trivially_copyable_v<T> ByteWriter& number(T value) {
    return raw({reinterpret_cast<const std::byte*>(&value), sizeof(T)});
  }
  ByteWriter& text(std::string_view text) {
    number(static_cast<std::uint64_t>(text.size()));
    return raw(std::as_bytes(std::span(text)));
  }
  ByteWriter& raw(std::span<const std::byte> bytes) {
    if (bytes.empty()) return *this;
    const std::size_t size = bytes_.size();
    bytes_.resize(size + bytes.size());
    std::memcpy(bytes_.data() + size, bytes.data(), bytes.size());
    return *this;
  }

  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

/// Takes them out again. Past the end it gives zeros and empty texts, and complete() is false.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename T>
  requires std::is_trivially_copyable_v<T> T number() {
    T value{};
    if (!has(sizeof(T))) return value;
    std::memcpy(&value, bytes_.data(), sizeof(T));
    bytes_ = bytes_.subspan(sizeof(T));
    return value;
  }
  std::string text() {
    const auto size = number<std::uint64_t>();
    if (!has(size)) return {};
    std::string text(reinterpret_cast<const char*>(bytes_.data()), size);
    bytes_ = bytes_.subspan(size);
    return text;
  }
  /// Nothing was missing and nothing is left.
  [[nodiscard]] bool complete() const { return !short_ && bytes_.empty(); }

 private:
  bool has(std::uint64_t size) {
    short_ = short_ || size > bytes_.size();
    return !short_;
  }

  std::span<const std::byte> bytes_;
  bool short_ = false;
};

}  // namespace qshard
