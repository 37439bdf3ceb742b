#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>

namespace qshard::fuzz {

/// Several texts in one input: each but the last after its length in two bytes, little-endian; the last is the rest.
inline std::string join_sections(const std::vector<std::string>& sections) {
  std::string text;
  for (std::size_t i = 0; i + 1 < sections.size(); ++i) {
    text += static_cast<char>(sections[i].size() & 0xFFU);
    text += static_cast<char>(sections[i].size() >> 8U & 0xFFU);
    text += sections[i];
  }
  return text + sections.back();
}

/// The other way; a section is cut short where the input ends.
inline std::vector<std::string> split_sections(std::string_view input, std::size_t count) {
  std::vector<std::string> sections;
  while (sections.size() + 1 < count) {
    std::size_t size = 0;
    for (std::size_t i = 0; i < 2 && i < input.size(); ++i)
      size |= static_cast<std::size_t>(std::uint8_t(input[i])) << 8 * i;
    input.remove_prefix(std::min<std::size_t>(2, input.size()));
    sections.emplace_back(input.substr(0, size));
    input.remove_prefix(sections.back().size());
  }
  sections.emplace_back(input);
  return sections;
}

/// A directory in memory for the files of one input, emptied for each and removed at the end of the program.
class MemoryDirectory {
 public:
  MemoryDirectory() : path_(fmt::format("/dev/shm/qshard-fuzz-{}-{}", ::getpid(), count_++)) { clear(); }
  MemoryDirectory(const MemoryDirectory&) = delete;
  MemoryDirectory& operator=(const MemoryDirectory&) = delete;
  ~MemoryDirectory() { std::filesystem::remove_all(path_); }

  void clear() const {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  void write(std::string_view name, std::string_view text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  static inline int count_ = 0;  // of this process, so that two at once are two
  std::filesystem::path path_;
};

}  // namespace qshard::fuzz
