#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "core/formats/hf_checkpoint.h"
#include "core/sharding/slot_index.h"
#include "reference/llama_ends.h"
#include "reference/llama_layer.h"
#include "reference/sharded_unit.h"

namespace qshard::reference {

/// The model's parameters as shards on the ranks of this process, gathered and released by stage.
class ShardedWeights {
 public:
  /// Reads every parameter of the base model from the checkpoint, one tensor at a time: a linear layer that the layout
  /// holds in 4 bits is quantized, or taken as it is where the checkpoint already holds it so; dense tensors are
  /// rounded to the layout's dtype. Adapters stay zero. Throws Error(bad_input) naming a missing or misshapen tensor.
  ShardedWeights(const ShardLayout& layout, const HfCheckpoint& checkpoint, const QuantizationOptions& quantization,
                 const ProcessGroup& group, std::vector<MemoryLedger>& ranks);

  [[nodiscard]] std::vector<ShardedUnit>& units() { return units_; }
  [[nodiscard]] const std::vector<ShardedUnit>& units() const { return units_; }

  /// Gathers (collectively) or releases all units that a stage of the forward pass needs.
  void gather(std::size_t stage);
  void release(std::size_t stage);

  /// The weights of decoder layer `layer` as `rank` sees them; its stage (layer + 1) must be gathered, and stay so for
  /// as long as the result is used.
  [[nodiscard]] LayerWeights<float> layer(std::int64_t layer, std::size_t rank) const;
  /// The two ends; the stages of those that are used must be gathered.
  [[nodiscard]] EndWeights<float> ends(std::size_t rank) const;

 private:
  [[nodiscard]] std::span<ShardedUnit> units_of(std::size_t stage);
  [[nodiscard]] const Slot& slot(const SlotPlace& place) const;
  // A gathered parameter as `rank` sees it; without bytes where the model has none or its unit is not gathered.
  [[nodiscard]] TensorView gathered(std::size_t rank, std::size_t stage, ParameterRole role,
                                    Projection projection = Projection::q) const;
  [[nodiscard]] Vector<float> vector(std::size_t rank, std::size_t stage, ParameterRole role,
                                     Projection projection = Projection::q) const;
  [[nodiscard]] LinearWeights<float> linear(std::size_t rank, std::size_t stage, Projection projection) const;
  void load(const HfCheckpoint& checkpoint, const QuantizationOptions& quantization);
  void load_weight4bit(std::size_t stage, const Parameter& codes, const HfCheckpoint& checkpoint,
                       const QuantizationOptions& quantization);
  void store(const SlotPlace& place, std::span<const std::byte> bytes);

  using LayerInfos = std::array<std::optional<Weight4bitInfo>, kProjections>;

  SlotIndex index_;
  std::size_t head_stage_;
  std::vector<ShardedUnit> units_;
  std::vector<LayerInfos> infos_;  // index = stage; empty where a weight is not 4-bit
};

}  // namespace qshard::reference
