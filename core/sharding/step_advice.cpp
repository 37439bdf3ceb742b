#include "core/sharding/step_advice.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace qshard {

namespace {

double tokens_a_gpu(const StepWork& work, const StepTime& step) {
  return step.tokens_per_second / static_cast<double>(work.world_size());
}

}  // namespace

std::vector<StepKnob> try_knobs(const StepWork& work, const DeviceNumbers& numbers) {
  const double now = tokens_a_gpu(work, predict_step(work, numbers));
  std::vector<StepKnob> knobs;
  const auto turn = [&](const char* change, const std::function<void(StepWork&)>& action) {
    StepWork changed = work;
    action(changed);
    const StepTime step = predict_step(changed, numbers);
    knobs.push_back({change, step.seconds, tokens_a_gpu(changed, step) / now - 1});
  };
  const std::int64_t layers = work.model.num_hidden_layers;
  if (work.choice.kept_layers < layers) {
    turn("training.gradient_checkpointing: false", [layers](StepWork& to) { to.choice.kept_layers = layers; });
  }
  if (work.choice.kept_layers > kFreeLayers) {
    turn("training.gradient_checkpointing: true", [](StepWork& to) { to.choice.kept_layers = kFreeLayers; });
  }
  turn(work.choice.inputs_on_host ? "training.activation_offloading: false" : "training.activation_offloading: true",
       [](StepWork& to) { to.choice.inputs_on_host = !to.choice.inputs_on_host; });
  turn("training.per_device_train_batch_size x 2", [](StepWork& to) {
    to.batch.tokens *= 2;
    to.batch.rows *= 2;
  });
  turn("training.gradient_accumulation_steps x 2", [](StepWork& to) { to.micro_batches *= 2; });
  turn(work.offload ? "fsdp.fsdp_offload_params: false" : "fsdp.fsdp_offload_params: true",
       [](StepWork& to) { to.offload = !to.offload; });
  turn("fsdp.world_size x 2", [](StepWork& to) { to.ranks *= 2; });
  if (work.ranks > 1 && work.sharding == ShardingStrategy::full_shard) {
    turn("fsdp.fsdp_sharding_strategy: SHARD_GRAD_OP",
         [](StepWork& to) { to.sharding = ShardingStrategy::shard_grad_op; });
  }
  std::ranges::stable_sort(knobs, std::greater{}, &StepKnob::gain);
  return knobs;
}

double pipeline_seconds(const StepWork& work, const DeviceNumbers& numbers) {
  if (work.ranks == 1) return 0;
  StepWork alone = work;
  alone.ranks = alone.groups = alone.micro_batches = 1;
  alone.offload = false;
  const double arithmetic = numbers.slowest_rank * predict_step(alone, numbers).timeline.end;
  const auto stages = static_cast<double>(work.ranks);
  const double optimizer = predict_step(work, numbers).parts.back().seconds;
  return arithmetic * (stages * static_cast<double>(work.micro_batches) + stages - 1) / stages + optimizer;
}

double pipeline_link_share(const StepWork& work, const DeviceNumbers& numbers) {
  if (work.ranks == 1) return 0;
  const double pipeline = pipeline_seconds(work, numbers);
  const auto wins = [&](double share) {
    DeviceNumbers scaled = numbers;
    for (double* rate : {&scaled.peer_rate, &scaled.network_rate, &scaled.host_rate, &scaled.nccl_rate}) *rate *= share;
    return pipeline < predict_step(work, scaled).seconds;
  };
  double slow = 1e-3;
  double fast = 1e3;
  if (!wins(slow)) return 0;
  if (wins(fast)) return std::numeric_limits<double>::infinity();
  while (fast / slow > 1.001) {
    const double middle = std::sqrt(slow * fast);
    (wins(middle) ? slow : fast) = middle;
  }
  return fast;
}

}  // namespace qshard
