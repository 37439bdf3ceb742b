#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qshard {

/// Bytes under one name.
struct MemoryUse {
  std::string name;
  std::int64_t bytes = 0;
};

/// What a run does for speed, memory allowing. The bits of its results do not depend on it.
struct MemoryChoice {
  std::int64_t kept_layers = 0;  // decoder layers whose activations are kept instead of made again
  bool inputs_on_host = false;   // the layers' inputs wait for the backward pass in host memory
  bool early_head = true;        // the head is gathered while the last layer computes
};

/// What one rank needs of its GPU's memory, found by a dry run of loading, a training step and an evaluation.
struct MemoryPlan {
  std::int64_t arena_bytes = 0;    // the one allocation that everything below lies in
  std::vector<MemoryUse> at_peak;  // what is in use when the arena is fullest, largest first
  std::int64_t host_bytes = 0;     // pinned host memory
  MemoryChoice choice;
};

}  // namespace qshard
