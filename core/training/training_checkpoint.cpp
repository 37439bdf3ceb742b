#include "core/training/training_checkpoint.h"

#include <algorithm>
#include <charconv>
#include <system_error>

#include <fmt/format.h>
#include <unistd.h>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/formats/safetensors.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "checkpoint-";
constexpr std::string_view kAdapterFile = "adapter_model.safetensors";
constexpr std::string_view kOptimizerFile = "optimizer.safetensors";
constexpr std::string_view kStateFile = "trainer_state.json";

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
  const NamedTensors adapter = engine.adapter();
  const NamedTensors optimizer = engine.optimizer_state();
  if (engine.first_rank() != 0) return;
  AtomicDirectory directory(checkpoint_path(output_dir, state.global_step));
  save_adapter(directory.path(), adapter);
  write_tensors(directory.path() / kOptimizerFile, optimizer);
  write_file(directory.path() / kStateFile, python_json(to_json(state), 2) + "\n");
  directory.commit();
}

TrainingCheckpoint read_checkpoint(const fs::path& directory) {
  const fs::path state_path = directory / kStateFile;
  TrainingCheckpoint checkpoint;
  checkpoint.state = parse_trainer_state(read_file(state_path), state_path.string());
  checkpoint.adapter = read_tensors(directory / kAdapterFile);
  checkpoint.optimizer = read_tensors(directory / kOptimizerFile);
  return checkpoint;
}

void remove_checkpoint(const fs::path& directory) {
  fs::path aside = directory;
  aside += fmt::format(".tmp-{}", ::getpid());  // remove_leftovers finishes what a killed process began
  std::error_code error;
  fs::rename(directory, aside, error);
  if (!error) fs::remove_all(aside, error);
  if (error) fail_to_write(directory, error.value());
}

void remove_old_checkpoints(const fs::path& output_dir, std::int64_t keep) {
  const std::vector<fs::path> all = list_checkpoints(output_dir);
  if (keep == 0) return;
  for (std::size_t i = static_cast<std::size_t>(keep); i < all.size(); ++i) remove_checkpoint(all[i]);
}

}  // namespace qshard
