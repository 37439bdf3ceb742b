#include "core/training/output_directory.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/formats/tokenizer_files.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kProbeFile = ".writable";
constexpr std::string_view kMetricsFile = "metrics.jsonl";
constexpr std::array<std::string_view, 4> kRunFiles{"adapter_model.safetensors", "adapter_config.json", kMetricsFile,
                                                    "trainer_state.json"};

/// Fails before hours of training, not after.
void check_writable(const fs::path& directory) {
  const fs::path probe = directory / kProbeFile;
  write_file(probe, "");
  fs::remove(probe);
}

FileLock lock(const fs::path& directory) {
  const fs::path path = directory / ".lock";
  if (std::optional<FileLock> taken = FileLock::try_take(path)) return *std::move(taken);
  fail_input(
      "{}: another process is writing to it and holds {}. Wait until it ends, stop it, or choose another "
      "training.output_dir",
      directory.string(), path.string());
}

/// What a run has written: its checkpoints, and those of its files that are there.
std::vector<fs::path> files_of_run(const fs::path& directory) {
  std::vector<fs::path> found = list_checkpoints(directory);
  for (const std::string_view name : kRunFiles) {
    if (fs::exists(directory / name)) found.push_back(directory / name);
  }
  return found;
}

/// The run begins at its first step; an earlier one's files are replaced only where that was asked for.
void start_anew(OutputDirectory& output, bool overwrite) {
  output.earlier = files_of_run(output.path);
  if (output.earlier.empty() || overwrite) return;
  fail_input(
      "{}: holds an earlier run. Go on with it (--training.resume_from_checkpoint true), choose another "
      "training.output_dir, or remove its files (--training.overwrite_output_dir true)",
      output.path.string());
}

/// Nothing can be gone on from. Metrics alone are no result: of a run that was ended before its first checkpoint.
void start_without_checkpoint(OutputDirectory& output, bool overwrite) {
  std::vector<fs::path> found = files_of_run(output.path);
  std::erase(found, output.path / kMetricsFile);
  if (!found.empty() && !overwrite) {
    const std::string reasons = output.notes.empty() ? "" : fmt::format(" ({})", fmt::join(output.notes, "; "));
    fail_input(
        "{}: there is no checkpoint to go on from{}, but an earlier run's {}, which a new run would replace. Choose "
        "another training.output_dir, or remove its files (--training.overwrite_output_dir true)",
        output.path.string(), reasons, found.front().filename().string());
  }
  output.earlier = std::move(found);
  output.notes.push_back(
      fmt::format("{}: holds no checkpoint to go on from; starting from the beginning", output.path.string()));
}

void resume_newest(OutputDirectory& output, bool overwrite) {
  for (const fs::path& directory : list_checkpoints(output.path)) {
    try {
      output.resume = ResumePoint{directory, read_checkpoint(directory)};
      return;
    } catch (const Error& error) {
      if (error.code() != ExitCode::bad_input) throw;
      output.notes.push_back(fmt::format("Passed over a damaged checkpoint: {}", error.what()));
    }
  }
  start_without_checkpoint(output, overwrite);
}

void resume_named(OutputDirectory& output, const fs::path& directory, bool overwrite) {
  output.resume = ResumePoint{directory, read_checkpoint(directory)};
  const fs::path plain = directory.has_filename() ? directory : directory.parent_path();
  std::error_code ignored;
  if (!fs::equivalent(fs::absolute(plain).parent_path(), output.path, ignored)) {
    start_anew(output, overwrite);
    return;
  }
  for (const fs::path& other : list_checkpoints(output.path)) {
    if (checkpoint_step(other) <= output.resume->checkpoint.state.global_step) continue;
    if (!overwrite) {
      fail_input(
          "{}: is newer than the checkpoint to go on from and would be mixed up with the new run's; choose another "
          "training.output_dir, or remove it (--training.overwrite_output_dir true)",
          other.string());
    }
    output.earlier.push_back(other);
  }
}

/// Names that a run writes into its output directory through a temporary one.
bool is_written_by_runs(std::string_view name) {
  return checkpoint_step(fs::path(name)) >= 0 || name == kProbeFile || is_tokenizer_file(name) ||
         std::ranges::find(kRunFiles, name) != kRunFiles.end();
}

}  // namespace

OutputDirectory open_output_directory(const TrainingConfig& training) {
  OutputDirectory output;
  output.path = training.output_dir;
  make_directories(output.path);
  output.lock = lock(output.path);
  check_writable(output.path);
  remove_leftovers(output.path, is_written_by_runs);
  const std::string& resume = training.resume_from_checkpoint;
  if (resume == "false" || resume == "False" || resume.empty()) {
    start_anew(output, training.overwrite_output_dir);
  } else if (resume == "true" || resume == "True" || resume == "latest") {
    resume_newest(output, training.overwrite_output_dir);
  } else {
    resume_named(output, resume, training.overwrite_output_dir);
  }
  return output;
}

void remove_earlier_run(OutputDirectory& output) {
  for (const fs::path& path : output.earlier) {
    if (fs::is_directory(path)) {
      remove_checkpoint(path);
    } else {
      fs::remove(path);
    }
  }
  if (!output.earlier.empty())
    output.notes.push_back(fmt::format("Removed an earlier run from {}", output.path.string()));
  output.earlier.clear();
}

}  // namespace qshard
