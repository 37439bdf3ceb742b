#pragma once

#include <string>
#include <vector>

#include "core/sharding/step_time.h"

namespace qshard {

/// What one change of the configuration would do, memory allowing.
struct StepKnob {
  std::string change;  // in the words of the configuration
  double seconds = 0;  // of a step with it
  double gain = 0;     // tokens a second of each GPU over those without it, minus 1
};

/// Each knob turned alone, largest gain first: activations kept or made again, layers' inputs, rows of a micro-batch,
/// micro-batches, offload, sharding strategy, world size. Which of them fit into the memory is not asked.
std::vector<StepKnob> try_knobs(const StepWork& work, const DeviceNumbers& numbers);

/// The same step with the layers cut into as many stages as there are ranks, each on one GPU, no weight ever moved: n
/// ranks and m micro-batches each make n m micro-batches, which take (n m + n - 1) / n times one's arithmetic (GPipe,
/// arXiv 1811.06965), the head counted as if it were spread evenly and activations as if they moved beside arithmetic.
/// 0 for one rank.
double pipeline_seconds(const StepWork& work, const DeviceNumbers& numbers);

/// The link over which both take the same time, as a share of the rates that bytes are gathered with (from peers, other
/// machines, host memory, by NCCL): over a slower one the pipeline is faster. 0 where it is not even at a thousandth of
/// them, and for one rank; infinite where it is still faster at a thousand times them.
double pipeline_link_share(const StepWork& work, const DeviceNumbers& numbers);

}  // namespace qshard
