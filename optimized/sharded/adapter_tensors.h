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
/// rank's. Shards go over the link. The device must be idle; the host waits.
class AdapterTensors {
 public:
  AdapterTensors(const ModelPlan& plan, const ShardPlaces& places, RankState& state, RankLink& link);

  /// PEFT's initialization, as the reference's: the values of a tensor depend on the seed and its name alone.
  void initialize(std::uint64_t seed);

  /// Collective. Rank 0 gets the tensors, the others none.
  [[nodiscard]] NamedTensors read() const;
  [[nodiscard]] NamedTensors read_optimizer() const;
  /// Collective: the tensors of rank 0, on every rank. Rank 0 throws Error(bad_input) naming a missing, unknown or
  /// misshapen tensor; nothing is written then.
  void write(const NamedTensors& tensors);
  void write_optimizer(const NamedTensors& tensors);

 private:
  template <typename Body>
  void for_each_slot(const Body& body) const;
  /// Of a slot's values, `own` being this rank's shard of the flat; every rank's is as large.
  [[nodiscard]] Tensor read_pieces(DType dtype, const Shape& shape, const std::vector<ShardPiece>& pieces,
                                   const std::byte* own) const;
  /// Whether the piece is one of this rank's shard.
  [[nodiscard]] bool is_own(const ShardPiece& piece) const;
  void write_pieces(std::span<const std::byte> values, const std::vector<ShardPiece>& pieces, std::byte* own);
  void write_parameter(std::size_t unit, std::size_t flat, const Slot& slot, std::span<const float> values);
  void finish_writing();
  [[nodiscard]] std::byte* own_parameters(std::size_t unit, std::size_t flat) const;

  const ModelPlan* plan_;
  const ShardPlaces* places_;
  RankState* state_;
  RankLink* link_;
};

}  // namespace qshard::optimized
