#pragma once

#include "core/launch/rank_link.h"

namespace qshard::optimized {

/// Makes this rank's GPU the current device: that of its place among the ranks of its host, counted round where there
/// are fewer GPUs than ranks. Collective. Throws Error(bad_input) without a usable GPU, or one that this build has no
/// code for.
void choose_device(RankLink& link);

}  // namespace qshard::optimized
