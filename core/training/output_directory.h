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
  std::vector<std::filesystem::path> earlier;  // files and checkpoints of an earlier run that this one replaces
  std::vector<std::string> notes;              // lines for the user
};

/// Makes the output directory, locks it, removes what killed processes left half-written in it, and finds what
/// training.resume_from_checkpoint asks for: the newest whole checkpoint (damaged ones are passed over with a note), or
/// the directory named. Nothing else is removed yet. Throws Error(bad_input) where the directory cannot be written or
/// another process holds it, where it holds an earlier run that is neither gone on with nor to be overwritten (one
/// whose checkpoints are all damaged included), or where the checkpoint named is not valid or older than others that
/// would stay beside it.
OutputDirectory open_output_directory(const TrainingConfig& training);

/// Removes `earlier`: once the new run can begin, so that a mistake in its configuration costs nothing.
void remove_earlier_run(OutputDirectory& output);

}  // namespace qshard
