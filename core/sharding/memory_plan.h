#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qshard {

/// Bytes under one name.
struct MemoryUse {
  std::string name;
  std::int64_t bytes = 0;
};

/// Layers whose activations a run keeps with gradient_checkpointing: true, too: the last one's, which the backward pass
/// begins with, cost no memory as a rule, since it is fuller later.
inline constexpr std::int64_t kFreeLayers = 1;

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
  std::string peak_in;             // the part of the run in which that is
  std::int64_t host_bytes = 0;     // pinned host memory
  std::int64_t table_bytes = 0;    // the GPU's page tables of host memory that it addresses
  MemoryChoice choice;

  /// Of the arena's allocation: whole pages of 2 MiB. Of an allocation that ends within one, peers address everything
  /// in pages of 4 KiB, and the tables of these take 2 MiB of each peer's memory a GiB.
  [[nodiscard]] std::int64_t allocation_bytes() const {
    constexpr std::int64_t kPage = std::int64_t{2} << 20;
    return (arena_bytes + kPage - 1) / kPage * kPage;
  }
  [[nodiscard]] std::int64_t device_bytes() const { return allocation_bytes() + table_bytes; }
};

/// What a run may need: the plans with every saving that its options allow, and with none that they do not ask for, and
/// the one within a given budget.
struct MemoryPlans {
  MemoryPlan smallest;
  MemoryPlan fastest;
  std::optional<MemoryPlan> within_budget;  // where a budget is given and something fits
  std::string remedies;                     // where nothing fits: a line each, what would make the smallest smaller
  std::int64_t outside = 0;                 // context and libraries of a rank, as measured on some GPU
};

/// Lines of text for people: sizes, choices, and what the memory goes to at the peak.
std::string describe(const MemoryPlans& plans, std::int64_t budget);

}  // namespace qshard
