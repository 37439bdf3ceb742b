#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "core/base/file_stamp.h"

namespace qshard {

/// Which checkpoints are whole, each read once: it is read again only where a file of it has changed since.
class WholeCheckpoints {
 public:
  /// is_whole() (core/training/training_checkpoint.h) of the directory.
  bool contains(const std::filesystem::path& directory);

 private:
  using Stamps = std::map<std::string, FileStamp>;
  static Stamps stamps_of(const std::filesystem::path& directory);

  std::map<std::filesystem::path, Stamps> known_;
};

}  // namespace qshard
