#pragma once

#include <memory>

#include "core/formats/hf_checkpoint.h"
#include "core/launch/rank_link.h"
#include "core/run/engine_options.h"
#include "core/training/training_engine.h"

namespace qshard::reference {

/// The CPU reference of FSDP-QLoRA: `options.world_size` ranks, dealt evenly to the processes of `link` (nullptr: all
/// in this process, in lockstep), each holding its shard of every unit. Reads the checkpoint tensor by tensor
/// (quantizing what is not yet 4-bit), so that memory stays at one tensor above what is kept. Same options, same bits,
/// on any number of threads and however the ranks are dealt to processes. `link` must outlive the engine. Collective.
/// Throws Error(bad_input) for a missing or misshapen tensor, naming it.
std::unique_ptr<TrainingEngine> make_sharded_engine(const HfCheckpoint& checkpoint, const EngineOptions& options,
                                                    RankLink* link = nullptr);

}  // namespace qshard::reference
