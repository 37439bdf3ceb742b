#include "core/training/whole_checkpoints.h"

#include <algorithm>
#include <system_error>

#include "core/training/training_checkpoint.h"

namespace qshard {

namespace fs = std::filesystem;

bool WholeCheckpoints::contains(const fs::path& directory) {
  const Stamps stamps = stamps_of(directory);
  const auto found = known_.find(directory);
  if (found != known_.end() && found->second == stamps) return true;
  known_.erase(directory);
  const auto now = std::chrono::system_clock::now();
  const bool settled = std::ranges::all_of(stamps, [&](const auto& file) { return file.second.is_settled(now); });
  if (!is_whole(directory)) return false;
  if (settled && stamps == stamps_of(directory)) known_[directory] = stamps;
  return true;
}

WholeCheckpoints::Stamps WholeCheckpoints::stamps_of(const fs::path& directory) {
  Stamps stamps;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    stamps[entry.path().filename().string()] = file_stamp(entry.path()).value_or(FileStamp());
  }
  return stamps;
}

}  // namespace qshard
