// The predicted time of a step beside every recorded one, and what a prediction must do when an input changes.
#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/model_shape.h"
#include "core/base/error.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/sharding/step_advice.h"
#include "correctness/expect_error.h"
#include "correctness/recorded_steps.h"

namespace qshard {
namespace {

/// Received by NCCL through host memory, with NCCL_P2P_DISABLE=1: 22 GB/s in shard_layout.json of H200, some 25 in a
/// step.
constexpr double kNcclThroughHost = 24e9;

/// Since then recomputation leaves the last layer out.
constexpr std::string_view kKeepsLastLayer = "2026-11-29T15:00";

StepWork work_of(const StepCase& of, std::string_view date = {}) {
  StepWork work;
  work.model = bench::model_shape(of.model, of.layers);
  work.quantization.quant_storage = DType::bf16;
  work.lora.r = of.r;
  work.lora.dropout = 0.1;
  const auto stages = list_model_stages(work.model, work.quantization, work.lora, DType::bf16,
                                        [](const auto&, const auto&) { return std::nullopt; });
  work.stages = list_stage_work(plan_shards(stages, static_cast<int>(of.ranks), work.sharding));
  work.ranks = of.ranks;
  work.batch = {of.rows * of.length, of.rows, of.length};
  work.choice.kept_layers = of.layers;  // auto: the records' cards held all layers
  if (of.checkpointing == "on") work.choice.kept_layers = date < kKeepsLastLayer ? 0 : kFreeLayers;
  work.choice.inputs_on_host = of.inputs_on_host;
  work.offload = of.offload;
  work.transport = of.transport;
  return work;
}

/// Since then attention has its own kernels for Hopper; before, cuDNN's took so much of product_rate.
constexpr std::string_view kOwnAttention = "2026-11-29T05:00";
constexpr double kForwardBefore = 0.7;
constexpr double kBackwardBefore = 0.31;

/// Since then so have adapters.
constexpr std::string_view kOwnAdapters = "2026-11-29T06:10";
constexpr double kAdaptersBefore = 0.2;

/// Since then kernels begin while the ones before them end.
constexpr std::string_view kEarlyLaunches = "2026-11-29T15:00";

/// With the program of that date.
StepTime predict(const StepCase& of, std::string_view date) {
  DeviceNumbers numbers = device_numbers(of.gpu, "");
  if (!of.has_peer_access) numbers.peer_rate = kNcclThroughHost;
  if (date < kOwnAttention) {
    numbers.attention_forward = kForwardBefore;
    numbers.attention_backward = kBackwardBefore;
  }
  if (date < kOwnAdapters) numbers.adapter_products = kAdaptersBefore;
  if (date < kEarlyLaunches) numbers.kernel_time = DeviceNumbers().kernel_time;
  return predict_step(work_of(of, date), numbers);
}

void print_error(const std::string& name, double predicted, double measured) {
  fmt::print("{:>7.4f} s predicted, {:>7.4f} s measured, {:+5.1f} %  {}\n", predicted, measured,
             100 * (predicted / measured - 1), name);
}

TEST(StepTime, EveryRecordedStepWithinATenth) {
  const std::vector<RecordedStep> steps = recorded_steps();
  EXPECT_GE(steps.size(), 20U);
  for (const RecordedStep& step : steps) {
    const double predicted = predict(step.of, step.date).seconds;
    print_error(step.of.gpu + " " + step.name, predicted, step.seconds);
    EXPECT_NEAR(predicted / step.seconds, 1, 0.10) << step.name;
  }
}

// Single runs on two H200s, before attention's own kernels; the first is the one that product_rate was fitted to.
TEST(StepTime, StepsOfTheWholeModelWithinATenth) {
  const std::vector<std::pair<StepCase, double>> cases{
      {{.gpu = "h200", .layers = 8}, 0.162},
      {{.gpu = "h200", .inputs_on_host = true}, 1.635},
      {{.gpu = "h200", .checkpointing = "off"}, 1.227},
      {{.gpu = "h200", .length = 4096, .r = 16, .inputs_on_host = true}, 3.127},
      {{.gpu = "h200", .length = 8192, .r = 16, .inputs_on_host = true}, 7.295},
  };
  for (const auto& [of, measured] : cases) {
    const double predicted = predict(of, "2026-11-28").seconds;
    print_error(
        fmt::format("h200 {} layers, {} tokens, r {}, recomputation {}", of.layers, of.length, of.r, of.checkpointing),
        predicted, measured);
    EXPECT_NEAR(predicted / measured, 1, 0.10);
  }
}

TEST(StepTime, PartsAddUpToTheStep) {
  for (const std::int64_t micro_batches : {1, 3}) {
    StepWork work = work_of({});
    work.micro_batches = micro_batches;
    work.offload = micro_batches == 3;
    const StepTime step = predict_step(work, device_numbers("rtx4090", ""));
    double sum = 0;
    for (const TimePart& part : step.parts) {
      EXPECT_GE(part.seconds, 0) << part.name;
      sum += part.seconds;
    }
    EXPECT_NEAR(sum, step.seconds, 1e-9 * step.seconds);
    EXPECT_NEAR(step.tokens_per_second * step.seconds, 2048.0 * 2 * static_cast<double>(micro_batches), 1e-3);
  }
}

// By hand: 80 layers of 855,638,016 weights, forward, the activations' gradient and, without the down projection's
// 234,881,024, the recomputation; 2 operations a weight and token.
TEST(StepTime, AStepOfProductsAloneTakesTheirOperationsOverTheirRate) {
  StepWork work = work_of({.ranks = 1});
  DeviceNumbers numbers = device_numbers("h100", "");
  numbers.memory_rate = numbers.host_rate = 1e30;
  numbers.attention_forward = numbers.attention_backward = numbers.adapter_products = 1e9;
  numbers.kernel_time = numbers.launch_time = 0;
  const double weights = 3 * 855638016.0 - 234881024.0;
  const double head = 4.0 * 2048 * 8192 * 32000;
  EXPECT_NEAR(predict_step(work, numbers).seconds, (2.0 * 2048 * 80 * weights + head) / numbers.product_rate, 1e-4);
}

TEST(StepTime, GathersAreHiddenExactlyWhereALayerTakesLonger) {
  StepWork work = work_of({});
  DeviceNumbers numbers = device_numbers("h100", "");
  const StepTime fast = predict_step(work, numbers);
  EXPECT_GT(fast.hidden_share(), 0.98);
  // 80 GB/s: 2.8 ms for the 220 MB from the peer, less than a layer's forward pass; 20 GB/s: 11 ms, more.
  numbers.peer_rate = 80e9;
  EXPECT_GT(predict_step(work, numbers).hidden_share(), 0.95);
  numbers.peer_rate = 20e9;
  const StepTime slow = predict_step(work, numbers);
  EXPECT_LT(slow.hidden_share(), 0.95);
  EXPECT_GT(slow.seconds, fast.seconds * 1.1);
  // Twice the tokens hide twice the gather.
  work.batch = {4096, 2, 2048};
  EXPECT_GT(predict_step(work, numbers).hidden_share(), slow.hidden_share());
}

TEST(StepTime, KeptActivationsAccumulationAndStrategyChangeWhatTheyShould) {
  const DeviceNumbers numbers = device_numbers("h100", "");
  const auto part = [](const StepTime& step, const std::string& name) {
    return std::ranges::find(step.parts, name, &TimePart::name)->seconds;
  };
  StepWork work = work_of({});
  const StepTime all = predict_step(work, numbers);
  work.choice.kept_layers = 40;
  EXPECT_NEAR(part(predict_step(work, numbers), "recomputation"), part(all, "recomputation") / 2, 1e-9);
  work.choice.kept_layers = 0;
  work.micro_batches = 4;
  EXPECT_NEAR(part(predict_step(work, numbers), "forward"), 4 * part(all, "forward"), 1e-9);
  EXPECT_NEAR(part(predict_step(work, numbers), "optimizer"), part(all, "optimizer"), 1e-9);
  work.micro_batches = 1;
  // The forward pass leaves two layers in the buffers; SHARD_GRAD_OP leaves all.
  const double unit = work.stages[1].bytes / 2 / numbers.peer_rate;
  work.sharding = ShardingStrategy::shard_grad_op;
  EXPECT_NEAR(all.timeline.gathering - predict_step(work, numbers).timeline.gathering, 78 * unit, 0.4 * 78 * unit);
  work.sharding = ShardingStrategy::no_shard;
  const StepTime replicated = predict_step(work, numbers);
  EXPECT_EQ(replicated.timeline.gathering, 0);
  EXPECT_GT(part(replicated, "optimizer"), 1.9 * part(all, "optimizer"));
}

TEST(StepTime, TransportsMoveOverTheirOwnLinks) {
  StepWork work = work_of({});
  DeviceNumbers numbers = device_numbers("h100", "");
  const StepTime peer = predict_step(work, numbers);
  // As fast as peers and beside the arithmetic, NCCL costs the embedding, which is gathered before anything is
  // computed.
  work.transport = Transport::nccl;
  numbers.nccl_rate = 1e30;
  numbers.nccl_slowdown = 1;
  const double embedding = work.stages.front().bytes;
  const double gather = embedding / 2 / numbers.peer_rate + embedding / numbers.memory_rate + numbers.message_time;
  EXPECT_NEAR(predict_step(work, numbers).seconds - peer.seconds, gather, 1e-9);
  numbers.nccl_slowdown = 1.4;
  EXPECT_GT(predict_step(work, numbers).seconds, peer.seconds * 1.02);
  work.transport = Transport::host;
  numbers.host_rate = numbers.peer_rate;
  EXPECT_NEAR(predict_step(work, numbers).seconds, peer.seconds, 1e-9);
  // With offload the own half comes from the host, too, but for the adapters, which stay on the GPU.
  work.offload = true;
  numbers.host_rate = 40e9;
  const StageWork& layer = work.stages[1];
  const double all = (layer.bytes - layer.adapters / 2) / 40e9 + layer.messages * numbers.message_time;
  const auto& segments = predict_step(work, numbers).timeline.segments;
  const auto first = std::ranges::find(segments, std::string_view("gather"), &Segment::what);
  EXPECT_NEAR(first->end - first->begin, all, 1e-12);
  EXPECT_EQ(layer.adapters, 2 * layer.trainable);
}

// Two layers of 1 s each way; the second is gathered from 0.5 to 1 s, beside the first, which does half as much then.
TEST(StepTime, ArithmeticIsSlowerWhileTheLinkIsBusy) {
  MicroBatchTimes times;
  times.forward = times.backward = {1, 1};
  times.gather = {0.5, 0.5};
  EXPECT_DOUBLE_EQ(play_step(times, 1).end, 4.5);
  times.slowdown = 2;
  EXPECT_DOUBLE_EQ(play_step(times, 1).end, 4.75);
  times.embedding_gather = 0.5;
  EXPECT_DOUBLE_EQ(play_step(times, 1).end, 5.25);
}

TEST(StepTime, HybridShardKeepsItsPaceOverThousandsOfGpus) {
  const DeviceNumbers numbers = device_numbers("h100", "");
  StepWork work = work_of({.ranks = 8});
  const StepTime one = predict_step(work, numbers);
  work.groups = 512;
  const StepTime hybrid = predict_step(work, numbers);
  EXPECT_GT(hybrid.tokens_per_second, 0.98 * 512 * one.tokens_per_second);
  EXPECT_LT(hybrid.tokens_per_second, 512 * one.tokens_per_second);
  // The same GPUs with the weights cut over all of them: each machine receives all of a unit, through its 8 links.
  work.ranks = std::int64_t{8} * 512;
  work.groups = 1;
  EXPECT_LE(predict_step(work, numbers).tokens_per_second, hybrid.tokens_per_second);
}

// By hand: n m micro-batches over n stages take n m + n - 1 of a stage's time, which is 1 / n of a micro-batch's.
TEST(StepTime, APipelineWinsWhereGathersAreNotHidden) {
  StepWork work = work_of({});
  DeviceNumbers numbers = device_numbers("h100", "");
  numbers.slowest_rank = 1;
  work.micro_batches = 4;
  const StepTime step = predict_step(work, numbers);
  const double optimizer = step.parts.back().seconds;
  EXPECT_NEAR(pipeline_seconds(work, numbers) / ((step.seconds - optimizer) / 4 * 4.5 + optimizer), 1, 0.01);
  EXPECT_GT(pipeline_seconds(work, numbers), step.seconds);
  // Over a link of a share of the rate, and a little more or less, it is just not faster, or is.
  const double share = pipeline_link_share(work, numbers);
  EXPECT_GT(share, 0.01);
  EXPECT_LT(share, 0.5);
  for (const double more : {0.97, 1.03}) {
    DeviceNumbers other = numbers;
    other.peer_rate *= share * more;
    EXPECT_EQ(pipeline_seconds(work, other) < predict_step(work, other).seconds, more < 1) << share;
  }
  numbers.peer_rate = 5e9;
  EXPECT_LT(pipeline_seconds(work, numbers), predict_step(work, numbers).seconds);
  EXPECT_EQ(pipeline_seconds(work_of({.ranks = 1}), numbers), 0);
}

TEST(StepTime, KnobsComeByTheirGain) {
  const std::vector<StepKnob> knobs = try_knobs(work_of({}), device_numbers("h100", ""));
  EXPECT_TRUE(std::ranges::is_sorted(knobs, std::greater{}, &StepKnob::gain));
  EXPECT_EQ(knobs.front().change, "training.gradient_checkpointing: false");
  EXPECT_NEAR(knobs.front().gain, 1.635 / 1.227 - 1, 0.03);  // as measured on two H200s
  // Where gathers are what takes the time, more tokens a gather are.
  DeviceNumbers slow = device_numbers("h100", "");
  slow.peer_rate = slow.host_rate = 5e9;
  EXPECT_EQ(try_knobs(work_of({}), slow).front().change, "training.per_device_train_batch_size x 2");
}

// What the vendor says that a card can do at most: dense bf16 products with sums in float, memory, and its own link.
TEST(StepTime, PresetsStayBelowWhatTheCardCanDo) {
  struct Limits {
    const char* gpu;
    double products, memory, link;
  };
  for (const Limits& most : {
           Limits{"rtx3090", 71e12, 936e9, 56.25e9},
           Limits{"rtx4090", 165.2e12, 1008e9, 32e9},
           Limits{"rtx5090", 209.5e12, 1792e9, 64e9},
           Limits{"a6000", 154.8e12, 768e9, 56.25e9},
           Limits{"l40s", 362e12, 864e9, 32e9},
           Limits{"a100", 312e12, 2039e9, 300e9},
           Limits{"h100", 989.4e12, 3350e9, 450e9},
           Limits{"h200", 989.4e12, 4800e9, 450e9},
       }) {
    const bool has_nvlink = most.link != 32e9 && most.link != 64e9;
    const DeviceNumbers numbers = device_numbers(most.gpu, has_nvlink ? "nvlink" : "");
    EXPECT_LT(numbers.product_rate, 0.85 * most.products) << most.gpu;
    EXPECT_GT(numbers.product_rate, 0.5 * most.products) << most.gpu;
    EXPECT_LT(numbers.memory_rate, 0.93 * most.memory) << most.gpu;
    EXPECT_GT(numbers.memory_rate, 0.85 * most.memory) << most.gpu;
    EXPECT_LT(numbers.peer_rate, 0.95 * most.link) << most.gpu;
    EXPECT_GT(numbers.peer_rate, 0.5 * most.link) << most.gpu;
  }
  EXPECT_LT(device_numbers("h100", "pcie4").host_rate, 32e9);
  EXPECT_LT(device_numbers("h100", "pcie5").host_rate, 64e9);
}

TEST(StepTime, PresetsAreThereForEveryCardAndLink) {
  for (const std::string& gpu : gpu_names()) {
    for (const char* link : {"", "pcie4", "pcie5", "network"}) {
      const DeviceNumbers numbers = device_numbers(gpu, link);
      for (const double number : {numbers.product_rate, numbers.memory_rate, numbers.peer_rate, numbers.network_rate,
                                  numbers.host_rate, numbers.attention_forward, numbers.attention_backward}) {
        EXPECT_GT(number, 0) << gpu << " " << link;
      }
    }
  }
  EXPECT_EQ(gpu_names().size(), 8U);
  expect_error(ExitCode::bad_input, {"rtx4091", "rtx4090"}, [] { device_numbers("rtx4091", ""); });
  expect_error(ExitCode::bad_input, {"rtx4090", "NVLink"}, [] { device_numbers("rtx4090", "nvlink"); });
  expect_error(ExitCode::bad_input, {"pcie9", "pcie4"}, [] { device_numbers("h100", "pcie9"); });
}

}  // namespace
}  // namespace qshard
