#pragma once

#include <memory>

#include "core/formats/hf_checkpoint.h"
#include "core/run/engine_options.h"
#include "core/training/training_engine.h"

namespace qshard::reference {

/// The CPU reference of FSDP-QLoRA: `options.world_size` ranks in lockstep in one process, each holding its shard of
/// every unit. Reads the checkpoint tensor by tensor (quantizing what is not yet 4-bit), so that memory stays at one
/// tensor above what is kept. Same options, same bits, on any number of threads.
/// Throws Error(bad_input) for a missing or misshapen tensor, naming it.
std::unique_ptr<TrainingEngine> make_sharded_engine(const HfCheckpoint& checkpoint, const EngineOptions& options);

}  // namespace qshard::reference
