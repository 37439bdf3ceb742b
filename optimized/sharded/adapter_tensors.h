#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/launch/rank_link.h"
#include "core/tensor/tensor.h"
#include "optimized/sharded/rank_state.h"

namespace qshard::optimized {

/// The adapter and the optimizer's moments as whole tensors by PEFT name, out of all ranks' shards and into this
/// rank's. Reading looks into the other ranks' memory: the caller sees to it that nobody writes meanwhile. The host
/// waits.
class AdapterTensors {
 public:
  AdapterTensors(const ModelPlan& plan, const ShardPlaces& places, RankState& state, const PeerArenas& peers);

  /// PEFT's initialization, as the reference's: the values of a tensor depend on the seed and its name alone.
  void initialize(std::uint64_t seed);

  [[nodiscard]] NamedTensors read() const;
  [[nodiscard]] NamedTensors read_optimizer() const;
  /// Collective: the tensors of rank 0, on every rank. Rank 0 throws Error(bad_input) naming a missing, unknown or
  /// misshapen tensor; nothing is written then.
  void write(const NamedTensors& tensors, RankLink& link);
  void write_optimizer(const NamedTensors& tensors, RankLink& link);

 private:
  template <typename Body>
  void for_each_slot(const Body& body) const;
  /// Of a slot's values, `offset` being that of the flat's shard in every rank's arena.
  [[nodiscard]] Tensor read_pieces(DType dtype, const Shape& shape, const std::vector<ShardPiece>& pieces,
                                   std::int64_t offset) const;
  void write_pieces(std::span<const std::byte> values, const std::vector<ShardPiece>& pieces, std::int64_t offset);
  void write_parameter(std::size_t unit, std::size_t flat, const Slot& slot, std::span<const float> values);
  [[nodiscard]] std::int64_t parameter_offset(std::size_t unit, std::size_t flat) const;

  const ModelPlan* plan_;
  const ShardPlaces* places_;
  RankState* state_;
  const PeerArenas* peers_;
};

}  // namespace qshard::optimized
