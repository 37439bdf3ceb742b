#include "core/training/output_directory.h"

#include <array>

#include <fmt/format.h>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/file.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 4> kRunFiles{"adapter_model.safetensors", "adapter_config.json", "metrics.jsonl",
                                                    "trainer_state.json"};

/// Fails before hours of training, not after.
void check_writable(const fs::path& directory) {
  const fs::path probe = directory / ".writable";
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

bool holds_run(const fs::path& directory) {
  if (!list_checkpoints(directory).empty()) return true;
  return std::ranges::any_of(kRunFiles, [&](std::string_view name) { return fs::exists(directory / name); });
}

void start_anew(OutputDirectory& output, bool overwrite) {
  if (!holds_run(output.path)) return;
  if (!overwrite) {
    fail_input(
        "{}: holds an earlier run. Go on with it (--training.resume_from_checkpoint true), choose another "
        "training.output_dir, or remove its files (--training.overwrite_output_dir true)",
        output.path.string());
  }
  for (const fs::path& checkpoint : list_checkpoints(output.path)) remove_checkpoint(checkpoint);
  for (const std::string_view name : kRunFiles) fs::remove(output.path / name);
  output.notes.push_back(fmt::format("Removed the earlier run from {}", output.path.string()));
}

void resume_newest(OutputDirectory& output) {
  for (const fs::path& directory : list_checkpoints(output.path)) {
    try {
      output.resume = ResumePoint{directory, read_checkpoint(directory)};
      return;
    } catch (const Error& error) {
      output.notes.push_back(fmt::format("Passed over a damaged checkpoint: {}", error.what()));
    }
  }
  output.notes.push_back(
      fmt::format("{}: holds no checkpoint to go on from; starting from the beginning", output.path.string()));
}

void resume_named(OutputDirectory& output, const fs::path& directory, bool overwrite) {
  output.resume = ResumePoint{directory, read_checkpoint(directory)};
  for (const fs::path& other : list_checkpoints(output.path)) {
    if (checkpoint_step(other) <= output.resume->checkpoint.state.global_step) continue;
    if (!overwrite) {
      fail_input(
          "{}: is newer than the checkpoint to go on from and would be mixed up with the new run's; choose another "
          "training.output_dir, or remove it (--training.overwrite_output_dir true)",
          other.string());
    }
    remove_checkpoint(other);
    output.notes.push_back(fmt::format("Removed {}, newer than the checkpoint to go on from", other.string()));
  }
}

}  // namespace

OutputDirectory open_output_directory(const TrainingConfig& training) {
  OutputDirectory output;
  output.path = training.output_dir;
  make_directories(output.path);
  output.lock = lock(output.path);
  check_writable(output.path);
  remove_leftovers(output.path);
  const std::string& resume = training.resume_from_checkpoint;
  if (resume == "false" || resume == "False" || resume.empty()) {
    start_anew(output, training.overwrite_output_dir);
  } else if (resume == "true" || resume == "True" || resume == "latest") {
    resume_newest(output);
  } else {
    resume_named(output, resume, training.overwrite_output_dir);
  }
  return output;
}

}  // namespace qshard
