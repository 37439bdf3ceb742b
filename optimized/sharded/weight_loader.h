#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/model/quantization_options.h"
#include "core/sharding/shard_layout.h"
#include "core/sharding/slot_index.h"
#include "optimized/device/arena.h"
#include "optimized/sharded/device_shards.h"
#include "optimized/sharded/exchange.h"
#include "optimized/sharded/weight_source.h"

namespace qshard::optimized {

/// Fills the ranks' frozen shards. The ranks take turns: in each round every rank reads one tensor, quantizes it on its
/// device where the layout holds it in 4 bits, and delivers its parts to the ranks that hold them. So each tensor is
/// read once a job, and the host holds one tensor at a time. Trainable shards stay as they are.
class WeightLoader {
 public:
  WeightLoader(const ShardLayout& layout, const ShardPlaces& places, const std::map<std::string, Weight4bitInfo>& infos,
               const QuantizationOptions& quantization, const WeightSource& source);

  /// Takes the memory that load() needs from the arena and gives it back: what a dry run of loading is.
  void reserve(Arena& arena) const;

  /// Collective, on rank `rank`. Waits for all ranks. Throws as WeightSource::write() and the exchange.
  void load(Exchange& exchange, std::size_t rank, Arena& arena, cudaStream_t stream) const;

 private:
  struct Memory {
    Arena::Piece staging;    // what this rank has read, for all ranks to copy from
    Arena::Piece raw;        // a tensor that is to be quantized
    Arena::Piece workspace;  // of its quantization
    Arena::Piece map;        // the nested map
  };
  struct Part {  // one slot's bytes in the staging memory
    SlotPlace place;
    std::int64_t offset;
  };
  struct Item {  // one tensor of the checkpoint
    std::string name;
    bool in_4bit = false;
    bool is_stored = false;      // in 4 bits in the checkpoint already
    std::vector<Part> parts;     // 4-bit: codes, absmax, nested absmax
    std::int64_t constants = 0;  // 4-bit and nested: offset of map and offset in the staging memory
    std::int64_t constants_index = 0;
  };

  [[nodiscard]] const Slot& slot(const Part& part) const;
  Item make_dense(const SlotPlace& place);
  Item make_4bit(const SlotPlace& place, const SlotIndex& index);
  [[nodiscard]] Memory take_memory(Arena& arena) const;
  void stage(const Item& item, const Memory& memory, cudaStream_t stream) const;
  void stage_quantized(const Item& item, const Memory& memory, cudaStream_t stream) const;
  void stage_stored(const Item& item, const Memory& memory, cudaStream_t stream) const;
  /// Gives a weight that has just been quantized to the source, which wants it.
  void give_back(const Item& item, const Memory& memory, cudaStream_t stream) const;
  /// What rank `from`, which has staged the item, gives to all ranks.
  void add_deliveries(const Item& item, std::size_t from, std::vector<Delivery>& deliveries) const;

  const ShardLayout* layout_;
  const ShardPlaces* places_;
  const std::map<std::string, Weight4bitInfo>* infos_;
  QuantizationOptions quantization_;
  const WeightSource* source_;
  std::vector<Item> items_;
  std::int64_t staging_bytes_ = 0;
  std::int64_t raw_bytes_ = 0;
  std::int64_t workspace_bytes_ = 0;
};

}  // namespace qshard::optimized
