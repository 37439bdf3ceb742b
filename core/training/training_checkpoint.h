#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "core/training/trainer_state.h"
#include "core/training/training_engine.h"
#include "core/training/whole_checkpoints.h"

namespace qshard {

/// Writes an adapter directory's files (PEFT's layout) into an existing directory.
using SaveAdapter = std::function<void(const std::filesystem::path& directory, const NamedTensors& adapter)>;

/// What a run goes on from: the adapter and the optimizer in the dtype they were computed in, and the state. Frozen
/// weights are never written.
struct TrainingCheckpoint {
  TrainerState state;
  NamedTensors adapter;
  NamedTensors optimizer;
};

/// <output_dir>/checkpoint-<step>.
std::filesystem::path checkpoint_path(const std::filesystem::path& output_dir, std::int64_t step);

/// The checkpoints in a directory, newest first. A checkpoint under its final name is complete: it is filled beside and
/// renamed once everything is on the disk.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& output_dir);

/// Step of a checkpoint directory's name, or -1 where it is not one.
std::int64_t checkpoint_step(const std::filesystem::path& directory);

/// Writes checkpoint-<state.global_step>: the adapter's files, optimizer.safetensors, trainer_state.json, and
/// checksums.xxh64 over all of them, in the form that xxhsum writes and `xxhsum -c` checks. Killed at
/// any moment, it leaves the checkpoint whole or absent. Collective; only the process that holds rank 0 writes. Throws
/// the errors of AtomicDirectory.
void save_checkpoint(const std::filesystem::path& output_dir, const TrainerState& state, TrainingEngine& engine,
                     const SaveAdapter& save_adapter);

/// Throws Error(bad_input) naming the file where something is missing, not valid or not what checksums.xxh64 says, or
/// where the directory is named after another step.
TrainingCheckpoint read_checkpoint(const std::filesystem::path& directory);

/// True where read_checkpoint would find every file as it was written.
bool is_whole(const std::filesystem::path& directory);

/// Of the checkpoints up to `saved_step`, the one just saved, keeps the `keep` newest (0: all) that are whole, and
/// removes the rest; a damaged one never counts as one of them. Each is renamed before it is emptied, so that a
/// half-removed one never looks complete. `whole` is kept from call to call, so that a checkpoint is read once.
void remove_old_checkpoints(const std::filesystem::path& output_dir, std::int64_t saved_step, std::int64_t keep,
                            WholeCheckpoints& whole);

/// Removes one checkpoint in that way.
void remove_checkpoint(const std::filesystem::path& directory);

}  // namespace qshard
