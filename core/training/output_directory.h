#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/base/file_lock.h"
#include "core/run/run_config.h"
#include "core/training/training_checkpoint.h"

namespace qshard {

/// Where a run starts from, and what it says about that.
struct ResumePoint {
  std::filesystem::path directory;
  TrainingCheckpoint checkpoint;
};

/// A run's own directory: no other process can open it as its output directory as long as this object lives.
struct OutputDirectory {
  std::filesystem::path path;
  std::optional<FileLock> lock;
  std::optional<ResumePoint> resume;
  std::vector<std::string> notes;  // lines for the user
};

/// Makes the output directory, locks it, removes what killed processes left half-written in it, and finds what
/// training.resume_from_checkpoint asks for: the newest complete checkpoint (damaged ones are passed over with a note;
/// none at all starts from the beginning), or the directory named. Throws Error(bad_input) where the directory cannot
/// be written or another process holds it, where it holds an earlier run that is neither resumed nor to be overwritten,
/// or where the checkpoint named is not valid or older than others that would stay beside it.
OutputDirectory open_output_directory(const TrainingConfig& training);

}  // namespace qshard
