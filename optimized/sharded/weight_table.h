#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/model/model_config.h"
#include "core/model/module_table.h"
#include "core/sharding/shard_layout.h"
#include "core/tensor/weight4bit.h"
#include "optimized/llama_layer.h"
#include "optimized/sharded/adapter_optimizer.h"
#include "optimized/sharded/unit_gatherer.h"

namespace qshard::optimized {

/// Where a parameter lies: units[unit].flats[flat].slots[slot]. Absent where the model has none of that name.
struct SlotPlace {
  static constexpr std::size_t kAbsent = static_cast<std::size_t>(-1);
  std::size_t unit = kAbsent;
  std::size_t flat = 0;
  std::size_t slot = 0;

  [[nodiscard]] bool present() const { return unit != kAbsent; }
};

/// Floats a 4-bit weight of the nested maps and offsets, which every rank holds: the map, the offset, and padding to 16
/// bytes.
inline constexpr std::int64_t kNestedConstants = 260;

/// Finds the parameters once, by name, and gives the pointers of a gathered stage.
class WeightTable {
 public:
  /// infos: of the 4-bit weights, by the weight's name. nested_constants: of weight i of `infos` at i *
  /// kNestedConstants, map first; null in a dry run.
  WeightTable(const ModelConfig& config, const ShardLayout& layout, const std::map<std::string, Weight4bitInfo>& infos,
              DType dtype, double lora_alpha, const float* nested_constants);

  /// The stage (layer + 1) must be acquired. `optimizer` gives the places of gradients; null: a forward pass alone.
  [[nodiscard]] LayerWeights layer(std::int64_t layer, const UnitGatherer& gatherer,
                                   const AdapterOptimizer* optimizer) const;
  /// Null where the parameter is absent, or in a dry run.
  [[nodiscard]] const void* parameter(const SlotPlace& place, const UnitGatherer& gatherer) const;

  [[nodiscard]] const SlotPlace& embedding() const { return embedding_; }
  [[nodiscard]] const SlotPlace& final_norm() const { return final_norm_; }
  /// The embedding's place where they are tied.
  [[nodiscard]] const SlotPlace& output_head() const { return output_head_; }
  [[nodiscard]] const Slot& slot(const SlotPlace& place) const;

 private:
  struct LinearPlaces {
    SlotPlace weight, absmax, nested_absmax, bias, lora_a, lora_b;
    FrozenWeight shape;  // without pointers to shards
  };
  struct LayerPlaces {
    SlotPlace input_norm, post_attention_norm, query_norm, key_norm;
    std::array<LinearPlaces, kProjections> projections;
  };

  [[nodiscard]] LinearPointers linear(const LinearPlaces& places, const UnitGatherer& gatherer,
                                      const AdapterOptimizer* optimizer) const;
  [[nodiscard]] float* gradient(const SlotPlace& place, const AdapterOptimizer* optimizer) const;

  const ShardLayout* layout_;
  double lora_alpha_;
  std::vector<LayerPlaces> layers_;
  SlotPlace embedding_, final_norm_, output_head_;
};

}  // namespace qshard::optimized
