#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/lora_options.h"
#include "core/model/model_config.h"
#include "core/model/quantization_options.h"
#include "core/sharding/device_numbers.h"
#include "core/sharding/layer_time.h"
#include "core/sharding/memory_plan.h"
#include "core/sharding/shard_layout.h"
#include "core/sharding/step_timeline.h"
#include "core/sharding/transport.h"
#include "core/training/batch_bound.h"

namespace qshard {

/// What is gathered and trained of one stage.
struct StageWork {
  double bytes = 0;      // of all units, gathered
  double adapters = 0;   // of them, bytes that are trained
  double messages = 0;   // one a flat
  double trainable = 0;  // elements of adapters
};

/// One optimizer step of a run, as far as its time depends on it.
struct StepWork {
  ModelConfig model;
  QuantizationOptions quantization;
  LoraOptions lora;
  std::vector<StageWork> stages;  // embedding, decoder layers, head
  ShardingStrategy sharding = ShardingStrategy::full_shard;
  std::int64_t ranks = 1;            // that the weights are sharded over, or under NO_SHARD all
  std::int64_t groups = 1;           // of so many ranks; above 1 it is HYBRID_SHARD, each group holds the whole model
  std::int64_t ranks_a_machine = 8;  // of a group
  BatchBound batch;                  // of one micro-batch of one rank
  std::int64_t micro_batches = 1;
  MemoryChoice choice;
  bool offload = false;                        // the frozen shards are in host memory
  Transport transport = Transport::automatic;  // automatic counts as peer

  [[nodiscard]] std::int64_t world_size() const { return ranks * groups; }
  /// Tokens of a step, over all ranks.
  [[nodiscard]] double tokens() const {
    return static_cast<double>(batch.tokens) * static_cast<double>(micro_batches * world_size());
  }
};

/// The stages of a layout. Sizes do not depend on its world size, but for padding.
std::vector<StageWork> list_stage_work(const ShardLayout& layout);

struct TimePart {
  std::string name;
  double seconds = 0;
};

struct StepTime {
  double seconds = 0;
  double tokens_per_second = 0;
  std::vector<TimePart> parts;  // which add up to seconds
  std::vector<TimePart> kinds;  // the arithmetic among them, by what kernels do
  Timeline timeline;

  /// Of the time that gathers take, what passes beside arithmetic; 1 where nothing is gathered.
  [[nodiscard]] double hidden_share() const;
};

/// Predicts a step in 16-bit arithmetic:
/// - forward, recomputation (of layers whose activations are not kept), backward and head as layer_time.h says, times
///   slowest_rank where there are several ranks;
/// - a gather of B bytes over n ranks, m of them in each machine: the larger of B (n-1)/n / peer_rate and, through the
///   m network links of a machine, B (1 - m/n) / (m network_rate); and the copy of the own part, 2 B/n / memory_rate;
///   over NCCL at nccl_rate where that is less, the embedding once too; with transport host from host memory,
///   B (n-1)/n / host_rate; with offload all frozen bytes from there; and message_time for each flat and machine, as a
///   ring goes round;
/// - a sum of a layer's gradients likewise with B = 4 bytes an element, layer by layer where they are sharded, and of
///   the whole at the end under NO_SHARD; over groups, each rank's own part once more at the end, over the network;
/// - gathers, sums and inputs on the host beside arithmetic as step_timeline.h says;
/// - AdamW on the own part.
/// - arithmetic beside NCCL's gathers and sums takes nccl_slowdown as long;
/// Left out: loading, saving, evaluation, the time between steps, and host memory's own bandwidth.
StepTime predict_step(const StepWork& work, const DeviceNumbers& numbers);

}  // namespace qshard
