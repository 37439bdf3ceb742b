#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/model_parameters.h"
#include "core/sharding/sharding_strategy.h"

namespace qshard {

/// A parameter's place in its flat.
struct Slot {
  Parameter parameter;
  std::int64_t offset = 0;  // bytes from the start of the flat; a multiple of kSlotAlignment
};
inline constexpr std::int64_t kSlotAlignment = 16;

/// Slots of trainable flats begin, and their shards are cut, at multiples of this many elements: a block of a
/// parameter's 8-bit moments is never torn apart, whatever the world size.
inline constexpr std::int64_t kTrainableAlignment = 256;

/// Parameters of one dtype, flattened one after the other, gathered in one message and cut into shards of equal size,
/// one for each rank of a group; the last is padded with zeros. In a frozen flat a cut may fall anywhere on an element,
/// inside a
/// parameter or a block.
struct Flat {
  std::string name;
  DType dtype = DType::u8;  // statistics are moved as bytes
  bool trainable = false;
  std::vector<Slot> slots;
  std::int64_t bytes = 0;        // used, padding between slots included
  std::int64_t shard_bytes = 0;  // of each rank; all of them under NO_SHARD
};

/// What is gathered at once (FSDP's wrapped module).
struct Unit {
  std::string name;
  std::size_t stage = 0;  // which ModelStage needs it
  std::vector<Flat> flats;
};

struct ShardLayout {
  int world_size = 1;
  ShardingStrategy sharding = ShardingStrategy::full_shard;
  /// That a flat is cut into. Ranks g * shards up to (g + 1) * shards are group g and hold one copy of the model: one
  /// group of all ranks under FULL_SHARD and SHARD_GRAD_OP, a group a rank under NO_SHARD.
  int shards = 1;
  std::vector<Unit> units;         // in the order of the forward pass
  std::vector<std::string> notes;  // what a user should know, each a sentence
};

/// The first rank of the group that `rank` is in.
std::size_t first_of_group(const ShardLayout& layout, std::size_t rank);

/// Cuts the model into units and shards by FSDP's rules: parameters are flattened together only when they share one
/// dtype, trainable ones apart from frozen ones. A stage whose 4-bit codes are stored in another dtype than its dense
/// parameters is split: each 4-bit layer becomes a unit of its own, and a note says what that costs. Scales of 4-bit
/// layers are sharded with their codes, which FSDP leaves on every rank.
///
/// group: the ranks of a group under HYBRID_SHARD; the others do not look at it. Throws Error(bad_input) where
/// the ranks cannot be dealt to such groups.
ShardLayout plan_shards(const std::vector<ModelStage>& stages, int world_size, ShardingStrategy sharding,
                        int group = 0);

/// What one shard holds of a parameter.
struct ShardPiece {
  std::size_t shard = 0;
  std::int64_t in_shard = 0;      // where it begins in the shard
  std::int64_t in_parameter = 0;  // where it begins in the parameter
  std::int64_t size = 0;
};

/// The pieces, in order, of a parameter that lies at `offset` of a flat cut into shards of `shard_size`. Everything is
/// counted in one unit, bytes or elements.
std::vector<ShardPiece> cut_into_pieces(std::int64_t offset, std::int64_t size, std::int64_t shard_size);

/// Bytes by use that one rank holds between steps: dense, codes, statistics, lora (all sharded, padding included).
struct ResidentBytes {
  std::int64_t dense = 0;
  std::int64_t codes = 0;
  std::int64_t statistics = 0;
  std::int64_t lora = 0;
};
ResidentBytes resident_bytes(const ShardLayout& layout);

/// Bytes of all flats of a unit when it is gathered, padding included.
std::int64_t gathered_bytes(const ShardLayout& layout, const Unit& unit);

/// All-gather messages of one pass over all units: one a flat, none under NO_SHARD.
std::int64_t gather_messages(const ShardLayout& layout);

/// A table of units for people, runs of equal decoder layers as one line, with totals and notes.
std::string describe(const ShardLayout& layout);

}  // namespace qshard
