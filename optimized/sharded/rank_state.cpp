#include "optimized/sharded/rank_state.h"

#include <algorithm>

#include "core/base/error.h"
#include "optimized/sharded/token_decoder.h"

namespace qshard::optimized {

namespace {

// The group's shards of the flat that the embedding lies in, as one string of bytes; empty where kernels cannot read
// them.
ShardedTable embedding_table(const ModelPlan& plan, const ShardPlaces& places, const SlotPlace& embedding,
                             const Exchange* exchange) {
  ShardedTable table;
  if (plan.layout.world_size > kMostShards) {
    fail_input("{} ranks are more than the {} that are supported", plan.layout.world_size, kMostShards);
  }
  if (exchange == nullptr || exchange->frozen(0) == nullptr) return table;
  table.shard_bytes = plan.layout.units[embedding.unit].flats[embedding.flat].shard_bytes;
  table.count = plan.layout.shards;
  for (int shard = 0; shard < table.count; ++shard) {
    table.shards[shard] =
        exchange->frozen(static_cast<std::size_t>(shard)) + places.offset(embedding.unit, embedding.flat);
  }
  return table;
}

// NCCL gathers the embedding like the head; elsewhere its rows are read where they lie.
bool gathers_embedding(const ModelPlan& plan) {
  return plan.options.transport == Transport::nccl && plan.layout.shards > 1;
}

TokenBatch largest_batch(const BatchBound& bound) {
  TokenBatch batch;
  batch.input_ids.assign(static_cast<std::size_t>(bound.tokens), 0);
  batch.labels = batch.input_ids;
  // Rows of the longest length, as many as there can be of them, and the rest in rows of one token or none.
  std::int64_t left = bound.tokens;
  for (std::int64_t row = 0; row < bound.rows; ++row) {
    const std::int64_t length = row + 1 == bound.rows ? left : std::min(left, bound.longest);
    left -= length;
    batch.offsets.push_back(bound.tokens - left);
    batch.row_ids.push_back(0);
  }
  return batch;
}

// A GPU addresses pinned host memory in pages of 4 KiB, each with 8 bytes in its own memory: 2 MiB a GiB, as measured
// on H100 and H200 with driver 580.
std::int64_t table_bytes(std::int64_t host_bytes) {
  return host_bytes / 4096 * 8;
}

}  // namespace

Arena::Piece take_exchange_room(const ModelPlan& plan, Arena& arena) {
  const std::int64_t bytes = exchange_bytes(plan.layout, plan.options.transport);
  return bytes == 0 ? Arena::Piece{} : arena.take(bytes, "gradients");
}

RankState::RankState(const ModelPlan& plan, const ShardPlaces& places, const ShardMemory& memory,
                     const MemoryChoice& choice, Exchange* exchange, const StepResources& resources)
    : memory_(&memory),
      table_(plan.config, plan.layout, plan.infos, plan.options.dtype, plan.options.lora.alpha,
             reinterpret_cast<const float*>(memory.at(ShardRange::constants))),
      gatherer_(plan.layout, places, memory, exchange, resources.stream, *resources.arena),
      gradients_(plan.layout, places, exchange, resources.stream, *resources.arena),
      optimizer_(plan.layout, places, plan.options.optimizer, *resources.arena),
      batch_(plan.bounds.all(), *resources.arena),
      rope_(plan.config, plan.options.dtype, plan.bounds.all().longest, *resources.arena),
      embedding_(embedding_table(plan, places, table_.embedding(), exchange)),
      step_({&plan.config, &plan.options, &table_, gathers_embedding(plan) ? nullptr : &embedding_, &gatherer_,
             &gradients_, &batch_, &rope_, resources},
            choice, plan.bounds.training.tokens) {}

MemoryPlan plan_memory(const ModelPlan& plan, const ShardPlaces& places, const WeightLoader& loader,
                       const MemoryChoice& choice) {
  Arena arena(nullptr, 0);
  const ShardMemory memory(places, plan.options.offload, arena);
  const Arena::Piece room = take_exchange_room(plan, arena);
  RankState state(plan, places, memory, choice, nullptr, {&arena});
  std::string peak_in = "loading";
  const auto run_part = [&](const char* name, const auto& part) {
    const std::int64_t before = arena.peak();
    part();
    if (arena.peak() > before) peak_in = name;
  };
  loader.reserve(arena);
  if (plan.bounds.training.tokens > 0) {
    run_part("training step", [&] {
      state.batch().upload(largest_batch(plan.bounds.training), 1.0F, nullptr);
      state.step().forward_backward(1);
    });
  }
  if (plan.bounds.evaluation.tokens > 0) {
    run_part("evaluation", [&] {
      state.batch().upload(largest_batch(plan.bounds.evaluation), 0.0F, nullptr);
      state.step().forward_loss();
    });
  }
  if (plan.bounds.decoder.rows > 0) {
    run_part("generation", [&] { TokenDecoder(state.step(), plan.bounds.decoder, false).reserve(); });
  }
  const std::int64_t shared = plan.options.transport == Transport::host ? HostPlaces(plan.layout, places).bytes() : 0;
  const std::int64_t inputs = state.step().host_bytes();
  return {
      arena.peak(), arena.at_peak(), peak_in, inputs + shared, table_bytes(inputs + plan.layout.world_size * shared),
      choice};
}

}  // namespace qshard::optimized
