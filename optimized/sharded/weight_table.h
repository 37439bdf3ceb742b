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
#include "core/sharding/slot_index.h"
#include "core/tensor/weight4bit.h"
#include "optimized/llama_layer.h"
#include "optimized/sharded/adapter_gradients.h"
#include "optimized/sharded/unit_gatherer.h"

namespace qshard::optimized {

/// Gives the pointers of a gathered stage.
class WeightTable {
 public:
  /// infos: of the 4-bit weights, by the weight's name. nested_constants: of weight i of `infos` at i *
  /// kNestedConstants, map first; null in a dry run.
  WeightTable(const ModelConfig& config, const ShardLayout& layout, const std::map<std::string, Weight4bitInfo>& infos,
              DType dtype, double lora_alpha, const float* nested_constants);

  /// The stage (layer + 1) must be acquired. `gradients`: where they are added to; null: a forward pass alone.
  [[nodiscard]] LayerWeights layer(std::int64_t layer, const UnitGatherer& gatherer,
                                   const AdapterGradients* gradients) const;
  /// Null in a dry run.
  [[nodiscard]] const void* parameter(const SlotPlace& place, const UnitGatherer& gatherer) const;

  [[nodiscard]] const SlotPlace& embedding() const;
  [[nodiscard]] const SlotPlace& final_norm() const;
  /// The embedding's place where they are tied.
  [[nodiscard]] const SlotPlace& output_head() const;
  [[nodiscard]] const Slot& slot(const SlotPlace& place) const;

 private:
  [[nodiscard]] std::size_t head_stage() const { return weights_.size() + 1; }
  [[nodiscard]] LinearPointers linear(std::int64_t layer, Projection role, const UnitGatherer& gatherer,
                                      const AdapterGradients* gradients) const;
  [[nodiscard]] float* gradient(const SlotPlace& place, const AdapterGradients* gradients) const;

  const ShardLayout* layout_;
  double lora_alpha_;
  SlotIndex index_;
  std::vector<std::array<FrozenWeight, kProjections>> weights_;  // of each layer, without pointers to shards
};

}  // namespace qshard::optimized
