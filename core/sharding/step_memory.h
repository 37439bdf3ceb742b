#pragma once

#include <vector>

#include "core/sharding/step_time.h"

namespace qshard {

/// Bytes of a rank that come and go during a step, from `at` (seconds) until the next moment.
struct MemoryMoment {
  double at = 0;
  double gathered =
      0;              // weights of layers and of the head, from the begin of their gather until their last reader ends
  double inputs = 0;  // of layers, kept from the forward to the backward pass
};

/// Of the first micro-batch, as `timeline` plays it: moments in order, the last one with nothing left. Inputs have 2
/// bytes an element and none is counted where they wait in host memory. Left out: what a layer needs while it computes,
/// and what is kept of its activations.
std::vector<MemoryMoment> memory_over_step(const StepWork& work, const Timeline& timeline);

}  // namespace qshard
