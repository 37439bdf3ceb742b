#include "core/training/training_checkpoint.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <sstream>
#include <system_error>

#include <fmt/format.h>
#include <unistd.h>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/trace_range.h"
#include "core/base/xxh64.h"
#include "core/formats/safetensors.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "checkpoint-";
constexpr std::string_view kAdapterFile = "adapter_model.safetensors";
constexpr std::string_view kOptimizerFile = "optimizer.safetensors";
constexpr std::string_view kStateFile = "trainer_state.json";
constexpr std::string_view kSumsFile = "checksums.xxh64";

void write_tensors(const fs::path& path, const NamedTensors& tensors) {
  std::vector<std::pair<std::string, TensorView>> views;
  for (const auto& [name, tensor] : tensors) views.emplace_back(name, tensor.view());
  write_safetensors(path, std::move(views));
}

NamedTensors read_tensors(const fs::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  NamedTensors tensors;
  for (const std::string& name : file.names()) tensors.emplace(name, Tensor(file.tensor(name)));
  return tensors;
}

std::string sum_line(const fs::path& directory, const std::string& name) {
  const MappedFile file = MappedFile::open(directory / name);
  return fmt::format("{:016x}  {}\n", xxh64(file.bytes()), name);
}

/// A line for each file in the directory, by name.
std::string sums_of(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.insert(entry.path().filename().string());
  std::string text;
  for (const std::string& name : names) text += sum_line(directory, name);
  return text;
}

/// Throws Error(bad_input) for a file that is not what its line says, and for one of the needed files without a line.
void check_sums(const fs::path& directory) {
  constexpr std::size_t kDigits = 16;
  const fs::path path = directory / kSumsFile;
  std::istringstream lines(read_file(path));
  std::set<std::string, std::less<>> missing{std::string(kAdapterFile), std::string(kOptimizerFile),
                                             std::string(kStateFile)};
  for (std::string line; std::getline(lines, line);) {
    const std::string name = line.size() > kDigits + 2 ? line.substr(kDigits + 2) : "";
    if (name.empty() || fs::path(name).filename() != name || name == "." || name == "..") {
      fail_input("{}: \"{}\" is no line of a checksum and a file's name", path.string(), line);
    }
    if (sum_line(directory, name) != line + "\n") {
      fail_input("{}: is not what was saved: its checksum is not that in {}", (directory / name).string(), kSumsFile);
    }
    missing.erase(name);
  }
  if (!missing.empty()) fail_input("{}: has no checksum of {}", path.string(), *missing.begin());
}

}  // namespace

fs::path checkpoint_path(const fs::path& output_dir, std::int64_t step) {
  return output_dir / fmt::format("{}{}", kPrefix, step);
}

std::int64_t checkpoint_step(const fs::path& directory) {
  const std::string name = (directory.has_filename() ? directory : directory.parent_path()).filename().string();
  if (!name.starts_with(kPrefix)) return -1;
  const std::string_view digits = std::string_view(name).substr(kPrefix.size());
  std::int64_t step = -1;
  const auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  return error == std::errc() && rest == digits.data() + digits.size() ? step : -1;
}

std::vector<fs::path> list_checkpoints(const fs::path& output_dir) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(output_dir, ignored)) {
    if (checkpoint_step(entry.path()) >= 0 && entry.is_directory(ignored)) found.push_back(entry.path());
  }
  std::ranges::sort(found, std::greater<>(), checkpoint_step);
  return found;
}

void save_checkpoint(const fs::path& output_dir, const TrainerState& state, TrainingEngine& engine,
                     const SaveAdapter& save_adapter) {
  const TraceRange range("save");
  const NamedTensors adapter = engine.adapter();
  const NamedTensors optimizer = engine.optimizer_state();
  if (engine.first_rank() != 0) return;
  AtomicDirectory directory(checkpoint_path(output_dir, state.global_step));
  save_adapter(directory.path(), adapter);
  write_tensors(directory.path() / kOptimizerFile, optimizer);
  write_file(directory.path() / kStateFile, python_json(to_json(state), 2) + "\n");
  write_file(directory.path() / kSumsFile, sums_of(directory.path()));
  directory.commit();
}

TrainingCheckpoint read_checkpoint(const fs::path& directory) {
  check_sums(directory);
  const fs::path state_path = directory / kStateFile;
  TrainingCheckpoint checkpoint;
  checkpoint.state = parse_trainer_state(read_file(state_path), state_path.string());
  const std::int64_t named = checkpoint_step(directory);
  if (named >= 0 && named != checkpoint.state.global_step) {
    fail_input("{}: is of step {}; give the directory that step's name again", directory.string(),
               checkpoint.state.global_step);
  }
  checkpoint.adapter = read_tensors(directory / kAdapterFile);
  checkpoint.optimizer = read_tensors(directory / kOptimizerFile);
  return checkpoint;
}

bool is_whole(const fs::path& directory) {
  try {
    check_sums(directory);
    return true;
  } catch (const Error&) {
    return false;
  }
}

void remove_checkpoint(const fs::path& directory) {
  fs::path aside = directory;
  aside += fmt::format(".tmp-{}", ::getpid());  // remove_leftovers finishes what a killed process began
  std::error_code error;
  fs::rename(directory, aside, error);
  if (!error) fs::remove_all(aside, error);
  if (error) fail_to_write(directory, error.value());
}

void remove_old_checkpoints(const fs::path& output_dir, std::int64_t saved_step, std::int64_t keep,
                            WholeCheckpoints& whole) {
  if (keep == 0) return;
  std::int64_t kept = 0;
  for (const fs::path& checkpoint : list_checkpoints(output_dir)) {
    const std::int64_t step = checkpoint_step(checkpoint);
    if (step > saved_step) continue;  // it was passed over as damaged
    if (kept == keep) {
      remove_checkpoint(checkpoint);
    } else if (step == saved_step || whole.contains(checkpoint)) {
      ++kept;
    }
  }
}

}  // namespace qshard
