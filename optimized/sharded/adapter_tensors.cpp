#include "optimized/sharded/adapter_tensors.h"

#include <cstring>

#include <cuda_runtime_api.h>

#include "core/formats/peft_adapter.h"
#include "core/model/lora_init.h"
#include "core/training/adapter_state.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

AdapterTensors::AdapterTensors(const ModelPlan& plan, const ShardPlaces& places, RankState& state,
                               const PeerArenas& peers)
    : plan_(&plan), places_(&places), state_(&state), peers_(&peers) {}

template <typename Body>
void AdapterTensors::for_each_slot(const Body& body) const {
  for (std::size_t unit = 0; unit < plan_->layout.units.size(); ++unit) {
    const std::vector<Flat>& flats = plan_->layout.units[unit].flats;
    for (std::size_t flat = 0; flat < flats.size(); ++flat) {
      if (!flats[flat].trainable) continue;
      for (const Slot& slot : flats[flat].slots) body(unit, flat, slot);
    }
  }
}

AdapterTensors::Shards AdapterTensors::parameter_shards(std::size_t unit, std::size_t flat) const {
  const Flat& of = plan_->layout.units[unit].flats[flat];
  return {state_->region_offset() + places_->offset(unit, flat), of.shard_bytes, of.dtype};
}

AdapterTensors::Shards AdapterTensors::moment_shards(const Arena::Piece& moments, std::size_t unit,
                                                     std::size_t flat) const {
  const Flat& of = plan_->layout.units[unit].flats[flat];
  const AdapterOptimizer& optimizer = state_->optimizer();
  const auto element = static_cast<std::int64_t>(size_of(optimizer.moment_dtype()));
  const std::int64_t elements = of.shard_bytes / static_cast<std::int64_t>(size_of(of.dtype));
  return {moments.offset() + optimizer.first_element(unit, flat) * element, elements * element,
          optimizer.moment_dtype()};
}

// A slot's pieces in shards of another element size than the slot's parameter has.
std::vector<ShardPiece> AdapterTensors::pieces(const Slot& slot, const Shards& shards) const {
  const auto stored = static_cast<std::int64_t>(size_of(slot.parameter.dtype));
  const auto element = static_cast<std::int64_t>(size_of(shards.dtype));
  return cut_into_pieces(slot.offset / stored * element, element_count(slot.parameter.shape) * element,
                         shards.shard_bytes);
}

Tensor AdapterTensors::read_slot(const Slot& slot, const Shards& shards) const {
  Tensor whole(shards.dtype, slot.parameter.shape);
  for (const ShardPiece& piece : pieces(slot, shards)) {
    const std::size_t rank = shard_count(plan_->layout) == 1 ? peers_->own : piece.shard;
    QSHARD_CUDA_CHECK(cudaMemcpy(whole.bytes().data() + piece.in_parameter,
                                 peers_->bases[rank] + shards.offset + piece.in_shard,
                                 static_cast<std::size_t>(piece.size), cudaMemcpyDefault));
  }
  return whole;
}

void AdapterTensors::write_slot(const Slot& slot, const Shards& shards, std::span<const float> values) {
  const Tensor whole = from_floats(values, shards.dtype, slot.parameter.shape);
  for (const ShardPiece& piece : pieces(slot, shards)) {
    if (shard_count(plan_->layout) > 1 && piece.shard != peers_->own) continue;
    QSHARD_CUDA_CHECK(cudaMemcpy(peers_->bases[peers_->own] + shards.offset + piece.in_shard,
                                 whole.bytes().data() + piece.in_parameter, static_cast<std::size_t>(piece.size),
                                 cudaMemcpyHostToDevice));
  }
}

void AdapterTensors::initialize(std::uint64_t seed) {
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    const bool is_a = slot.parameter.name.ends_with("lora_A.weight");
    const auto elements = static_cast<std::size_t>(element_count(slot.parameter.shape));
    const std::vector<float> values =
        is_a ? lora_a_values(seed, slot.parameter.name, slot.parameter.shape) : std::vector<float>(elements, 0.0F);
    write_slot(slot, parameter_shards(unit, flat), values);
  });
}

NamedTensors AdapterTensors::read() const {
  NamedTensors tensors;
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    tensors[peft_name(slot.parameter.name)] = read_slot(slot, parameter_shards(unit, flat));
  });
  return tensors;
}

NamedTensors AdapterTensors::read_optimizer() const {
  const AdapterOptimizer& optimizer = state_->optimizer();
  NamedTensors tensors;
  const auto read = [&](const Slot& slot, const Shards& shards, const char* suffix) {
    const std::vector<float> values = to_floats(read_slot(slot, shards).view());
    tensors[peft_name(slot.parameter.name) + suffix] = from_floats(values, DType::f32, slot.parameter.shape);
  };
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    read(slot, moment_shards(optimizer.exp_avg(), unit, flat), ".exp_avg");
    read(slot, moment_shards(optimizer.exp_avg_sq(), unit, flat), ".exp_avg_sq");
  });
  return tensors;
}

void AdapterTensors::write_named(const NamedTensors& tensors, const std::string& name, const Slot& slot,
                                 const Shards& shards, RankLink& link) {
  std::vector<float> values(static_cast<std::size_t>(element_count(slot.parameter.shape)));
  if (link.is_first()) values = named_floats(tensors, name, slot.parameter.shape);
  const std::vector<std::byte> bytes = link.broadcast(std::as_bytes(std::span(values)), 0);
  std::memcpy(values.data(), bytes.data(), bytes.size());
  write_slot(slot, shards, values);
}

void AdapterTensors::write(const NamedTensors& tensors, RankLink& link) {
  std::size_t used = 0;
  for_each_slot([&](std::size_t, std::size_t, const Slot&) { ++used; });
  if (link.is_first()) reject_unknown(tensors, used, "adapter");
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    write_named(tensors, peft_name(slot.parameter.name), slot, parameter_shards(unit, flat), link);
  });
}

void AdapterTensors::write_optimizer(const NamedTensors& tensors, RankLink& link) {
  const AdapterOptimizer& optimizer = state_->optimizer();
  std::size_t used = 0;
  for_each_slot([&](std::size_t, std::size_t, const Slot&) { used += 2; });
  if (link.is_first()) reject_unknown(tensors, used, "optimizer state");
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    const std::string name = peft_name(slot.parameter.name);
    write_named(tensors, name + ".exp_avg", slot, moment_shards(optimizer.exp_avg(), unit, flat), link);
    write_named(tensors, name + ".exp_avg_sq", slot, moment_shards(optimizer.exp_avg_sq(), unit, flat), link);
  });
}

}  // namespace qshard::optimized
