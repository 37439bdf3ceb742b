#include "core/sharding/step_time.h"

#include <algorithm>
#include <cmath>

namespace qshard {

namespace {

constexpr double kGradientBytes = 4;
constexpr double kElementBytes = 2;

/// Moves bytes between the ranks of a step.
class Movement {
 public:
  Movement(const StepWork& work, const DeviceNumbers& numbers)
      : work_(work), numbers_(numbers), ranks_(static_cast<double>(work.ranks)) {}

  [[nodiscard]] bool sharded() const { return work_.ranks > 1 && work_.sharding != ShardingStrategy::no_shard; }
  [[nodiscard]] bool gathers() const { return sharded() || work_.offload; }

  [[nodiscard]] double gather(const StageWork& stage) const {
    if (!gathers()) return 0;
    const double messages = stage.messages * numbers_.message_time;
    if (work_.offload) {
      const double own = sharded() ? stage.adapters / ranks_ : stage.adapters;  // are on the GPU
      return (stage.bytes - own) / numbers_.host_rate + messages;
    }
    return exchange(stage.bytes) + 2 * stage.bytes / ranks_ / numbers_.memory_rate + machines() * messages;
  }

  /// Each rank receives its part of the gradients from all others.
  [[nodiscard]] double gradient_sum(double elements) const {
    if (!sharded() || elements == 0) return 0;
    return exchange(kGradientBytes * elements) + machines() * numbers_.message_time;
  }

  /// What is left to sum after the last backward pass: all gradients where they are replicated, and the own part over
  /// the groups, by reduce-scatter and all-gather.
  [[nodiscard]] double final_sum(double elements) const {
    double seconds = 0;
    if (work_.ranks > 1 && !sharded()) {
      seconds += (ranks_ - 1) * kGradientBytes * elements / (machines() > 1 ? numbers_.network_rate : near_rate());
    }
    if (work_.groups > 1) {
      const auto groups = static_cast<double>(work_.groups);
      seconds += 2 * (groups - 1) / groups * kGradientBytes * own_part(elements) / numbers_.network_rate +
                 2 * (groups - 1) * numbers_.message_time;
    }
    return seconds;
  }

  [[nodiscard]] double own_part(double elements) const { return sharded() ? elements / ranks_ : elements; }

 private:
  /// Received within a machine.
  [[nodiscard]] double near_rate() const {
    if (work_.offload || work_.transport == Transport::host) return numbers_.host_rate;
    return work_.transport == Transport::nccl ? std::min(numbers_.nccl_rate, numbers_.peer_rate) : numbers_.peer_rate;
  }

  /// Of the ranks of a group.
  [[nodiscard]] double machines() const { return std::ceil(ranks_ / static_cast<double>(work_.ranks_a_machine)); }

  [[nodiscard]] double exchange(double bytes) const {
    const double near = bytes * (ranks_ - 1) / ranks_ / near_rate();
    if (machines() == 1) return near;
    const auto in_machine = static_cast<double>(work_.ranks_a_machine);
    return std::max(near, bytes * (1 - in_machine / ranks_) / (in_machine * numbers_.network_rate));
  }

  const StepWork& work_;
  const DeviceNumbers& numbers_;
  double ranks_;
};

/// Arithmetic of a micro-batch by pass.
struct PassTimes {
  KernelTimes forward;
  KernelTimes recomputation;
  KernelTimes backward;
  KernelTimes head;
};

void append_parts(StepTime& step, const PassTimes& passes, double micro_batches, double slower) {
  const KernelTimes& head = passes.head;
  const double sum = passes.forward.total() + passes.recomputation.total() + passes.backward.total() + head.total();
  step.parts = {{"forward", micro_batches * passes.forward.total()},
                {"recomputation", micro_batches * passes.recomputation.total()},
                {"backward", micro_batches * passes.backward.total()},
                {"output head and loss", micro_batches * head.total()},
                {"waiting for the slowest rank", micro_batches * (slower - 1) * sum}};
  KernelTimes kinds = passes.forward;
  kinds += passes.recomputation;
  kinds += passes.backward;
  kinds += head;
  step.kinds = {{"frozen products", micro_batches * kinds.products},
                {"adapters", micro_batches * kinds.adapters},
                {"attention", micro_batches * kinds.attention},
                {"other kernels", micro_batches * kinds.others}};
}

}  // namespace

std::vector<StageWork> list_stage_work(const ShardLayout& layout) {
  std::vector<StageWork> stages(layout.units.empty() ? 0 : layout.units.back().stage + 1);
  for (const Unit& unit : layout.units) {
    StageWork& stage = stages[unit.stage];
    stage.bytes += static_cast<double>(gathered_bytes(layout, unit));
    stage.messages += static_cast<double>(unit.flats.size());
    for (const Flat& flat : unit.flats) {
      if (!flat.trainable) continue;
      stage.adapters += static_cast<double>(flat.shard_bytes * layout.shards);
      for (const Slot& slot : flat.slots) stage.trainable += static_cast<double>(element_count(slot.parameter.shape));
    }
  }
  return stages;
}

double StepTime::hidden_share() const {
  return timeline.gathering > 0 ? 1 - timeline.waited_for_gathers / timeline.gathering : 1;
}

StepTime predict_step(const StepWork& work, const DeviceNumbers& numbers) {
  const Movement movement(work, numbers);
  const double slower = work.world_size() > 1 ? numbers.slowest_rank : 1;
  const std::int64_t layers = work.model.num_hidden_layers;
  PassTimes passes;
  MicroBatchTimes times;
  double trainable = 0;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const LayerTimes of = layer_times(work.model, layer, work.quantization, work.lora, work.batch, numbers);
    const bool keeps = layer >= layers - work.choice.kept_layers;
    passes.forward += of.forward;
    if (!keeps) passes.recomputation += of.recomputation;
    passes.backward += of.backward;
    times.forward.push_back(slower * of.forward.total());
    times.backward.push_back(slower * (of.backward.total() + (keeps ? 0 : of.recomputation.total())));
    const StageWork& stage = work.stages.at(stage_of_layer(layer));
    trainable += stage.trainable;
    if (movement.gathers()) times.gather.push_back(movement.gather(stage));
    times.gradient_sum = movement.gradient_sum(stage.trainable);
  }
  passes.head = head_times(work.model, work.batch, numbers);
  times.head = slower * passes.head.total();
  times.head_gather = movement.gather(work.stages.back());
  if (work.model.tie_word_embeddings) times.head_gather += movement.gather(work.stages.front());
  if (work.choice.inputs_on_host) {
    times.input_copy =
        kElementBytes * static_cast<double>(work.batch.tokens * work.model.hidden_size) / numbers.host_rate;
  }
  const bool over_nccl = work.transport == Transport::nccl && movement.gathers() && !work.offload;
  if (over_nccl) {
    times.embedding_gather = movement.gather(work.stages.front());
    times.slowdown = numbers.nccl_slowdown;
  }
  times.one_link = work.offload || work.transport == Transport::host || numbers.link_shares_host;
  times.early_head = work.choice.early_head;
  if (work.sharding == ShardingStrategy::shard_grad_op) times.buffers = times.forward.size();

  StepTime step;
  step.timeline = play_step(times, work.micro_batches);
  append_parts(step, passes, static_cast<double>(work.micro_batches), slower);
  const double final_sum = movement.final_sum(trainable);
  const double optimizer = optimizer_times(movement.own_part(trainable), numbers).total();
  step.parts.push_back({"waiting for gathers", step.timeline.waited_for_gathers});
  step.parts.push_back({"summing gradients", step.timeline.waited_for_sums + final_sum});
  step.parts.push_back({"waiting for layers' inputs", step.timeline.waited_for_inputs});
  step.parts.push_back({"optimizer", optimizer});
  step.seconds = step.timeline.end + final_sum + optimizer;
  step.tokens_per_second = work.tokens() / step.seconds;
  return step;
}

}  // namespace qshard
