#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/formats/hf_checkpoint.h"
#include "reference/llama_ends.h"
#include "reference/llama_layer.h"
#include "reference/sharded_unit.h"

namespace qshard::reference {

/// Where a parameter lies: units[unit].layout().flats[flat].slots[slot].
struct SlotPlace {
  std::size_t unit;
  std::size_t flat;
  std::size_t slot;
};

/// The model's parameters as shards on the ranks of this process, found by name, gathered and released by stage.
class ShardedWeights {
 public:
  /// Reads every frozen parameter from the checkpoint, one tensor at a time: a linear layer that the layout holds in
  /// 4 bits is quantized, or taken as it is where the checkpoint already holds it so; dense tensors are rounded to the
  /// layout's dtype. Adapters stay zero. Throws Error(bad_input) naming a missing or misshapen tensor.
  ShardedWeights(const ShardLayout& layout, const HfCheckpoint& checkpoint, const QuantizationOptions& quantization,
                 const ProcessGroup& group, std::vector<MemoryLedger>& ranks);

  [[nodiscard]] std::vector<ShardedUnit>& units() { return units_; }
  [[nodiscard]] const std::vector<ShardedUnit>& units() const { return units_; }
  [[nodiscard]] const Slot& slot(const SlotPlace& place) const;
  /// The parameter's place, or nullptr where the model has none of that name.
  [[nodiscard]] const SlotPlace* find(const std::string& name) const;

  /// Gathers (collectively) or releases all units that a stage of the forward pass needs.
  void gather(std::size_t stage);
  void release(std::size_t stage);

  /// The weights of decoder layer `layer` as `rank` sees them; its stage (layer + 1) must be gathered, and stay so for
  /// as long as the result is used.
  [[nodiscard]] LayerWeights<float> layer(std::int64_t layer, std::size_t rank) const;
  /// The two ends; the stages of those that are used must be gathered.
  [[nodiscard]] EndWeights<float> ends(std::size_t rank) const;

 private:
  [[nodiscard]] TensorView gathered(const std::string& name, std::size_t rank) const;
  [[nodiscard]] LinearWeights<float> linear(const std::string& module, std::size_t rank) const;
  void load(const HfCheckpoint& checkpoint, const QuantizationOptions& quantization);
  void load_weight4bit(const std::string& name, const HfCheckpoint& checkpoint,
                       const QuantizationOptions& quantization);
  void store(const std::string& name, std::span<const std::byte> bytes);

  std::vector<ShardedUnit> units_;
  std::map<std::string, SlotPlace> places_;
  std::map<std::string, Weight4bitInfo> infos_;  // by the weight's name
};

}  // namespace qshard::reference
