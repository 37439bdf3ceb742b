#include "optimized/sharded/rank_state.h"

#include <algorithm>

#include "core/base/error.h"
#include "optimized/sharded/token_decoder.h"

namespace qshard::optimized {

namespace {

// All ranks' shards of the flat that the embedding lies in, as one string of bytes.
ShardedTable embedding_table(const ModelPlan& plan, const ShardPlaces& places, const SlotPlace& embedding,
                             const PeerArenas& peers, std::int64_t region) {
  ShardedTable table;
  const std::size_t shards = shard_count(plan.layout);
  if (shards > kMostShards) fail_input("{} ranks are more than the {} that are supported", shards, kMostShards);
  table.shard_bytes = plan.layout.units[embedding.unit].flats[embedding.flat].shard_bytes;
  table.count = static_cast<int>(shards);
  for (std::size_t shard = 0; shard < shards && !peers.bases.empty(); ++shard) {
    const std::size_t rank = shards == 1 ? peers.own : shard;
    table.shards[shard] = peers.bases[rank] + region + places.offset(embedding.unit, embedding.flat);
  }
  return table;
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

}  // namespace

RankState::RankState(const ModelPlan& plan, const ShardPlaces& places, const MemoryChoice& choice,
                     const PeerArenas& peers, Transport* transport, const StepResources& resources)
    : region_(resources.arena->take(places.bytes(), "weight shards")),
      nested_constants_(
          resources.arena->take(static_cast<std::int64_t>(plan.infos.size()) * kNestedConstants * 4, "weight shards")),
      table_(plan.config, plan.layout, plan.infos, plan.options.dtype, plan.options.lora.alpha, nested_constants()),
      gatherer_(plan.layout, places, region_, transport, resources.stream, *resources.arena),
      gradients_(plan.layout, places, peers, resources.stream, *resources.arena),
      optimizer_(plan.layout, places, plan.options.optimizer, *resources.arena),
      batch_(plan.bounds.all(), *resources.arena),
      rope_(plan.config, plan.options.dtype, plan.bounds.all().longest, *resources.arena),
      embedding_(embedding_table(plan, places, table_.embedding(), peers, region_.offset())),
      step_({&plan.config, &plan.options, &table_, &embedding_, &gatherer_, &gradients_, &batch_, &rope_, resources},
            choice, plan.bounds.training.tokens) {}

MemoryPlan plan_memory(const ModelPlan& plan, const ShardPlaces& places, const WeightLoader& loader,
                       const MemoryChoice& choice) {
  Arena arena(nullptr, 0);
  const PeerArenas nobody;
  RankState state(plan, places, choice, nobody, nullptr, {&arena});
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
  return {arena.peak(), arena.at_peak(), peak_in, state.step().host_bytes(), choice};
}

}  // namespace qshard::optimized
