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

namespace {

std::vector<ShardPiece> parameter_pieces(const Flat& flat, const Slot& slot) {
  return cut_into_pieces(slot.offset, slot.parameter.bytes(), flat.shard_bytes);
}

}  // namespace

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

std::int64_t AdapterTensors::parameter_offset(std::size_t unit, std::size_t flat) const {
  return state_->region_offset() + places_->offset(unit, flat);
}

Tensor AdapterTensors::read_pieces(DType dtype, const Shape& shape, const std::vector<ShardPiece>& pieces,
                                   std::int64_t offset) const {
  Tensor whole(dtype, shape);
  for (const ShardPiece& piece : pieces) {
    const std::size_t rank = shard_count(plan_->layout) == 1 ? peers_->own : piece.shard;
    QSHARD_CUDA_CHECK(cudaMemcpy(whole.bytes().data() + piece.in_parameter,
                                 peers_->bases[rank] + offset + piece.in_shard, static_cast<std::size_t>(piece.size),
                                 cudaMemcpyDefault));
  }
  return whole;
}

void AdapterTensors::write_pieces(std::span<const std::byte> values, const std::vector<ShardPiece>& pieces,
                                  std::int64_t offset) {
  for (const ShardPiece& piece : pieces) {
    if (shard_count(plan_->layout) > 1 && piece.shard != peers_->own) continue;
    QSHARD_CUDA_CHECK(cudaMemcpy(peers_->bases[peers_->own] + offset + piece.in_shard,
                                 values.data() + piece.in_parameter, static_cast<std::size_t>(piece.size),
                                 cudaMemcpyHostToDevice));
  }
}

void AdapterTensors::write_parameter(std::size_t unit, std::size_t flat, const Slot& slot,
                                     std::span<const float> values) {
  const Tensor whole = from_floats(values, slot.parameter.dtype, slot.parameter.shape);
  write_pieces(whole.bytes(), parameter_pieces(plan_->layout.units[unit].flats[flat], slot),
               parameter_offset(unit, flat));
}

void AdapterTensors::initialize(std::uint64_t seed) {
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    const bool is_a = slot.parameter.name.ends_with("lora_A.weight");
    const auto elements = static_cast<std::size_t>(element_count(slot.parameter.shape));
    write_parameter(unit, flat, slot,
                    is_a ? lora_a_values(plan_->options.lora.start, seed, slot.parameter.name, slot.parameter.shape)
                         : std::vector<float>(elements, 0.0F));
  });
}

NamedTensors AdapterTensors::read() const {
  NamedTensors tensors;
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    tensors[peft_name(slot.parameter.name)] =
        read_pieces(slot.parameter.dtype, slot.parameter.shape,
                    parameter_pieces(plan_->layout.units[unit].flats[flat], slot), parameter_offset(unit, flat));
  });
  return tensors;
}

NamedTensors AdapterTensors::read_optimizer() const {
  const AdapterOptimizer& optimizer = state_->optimizer();
  const AdapterMoments& moments = optimizer.moments();
  NamedTensors tensors;
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    for (std::size_t i = 0; i < moments.arrays().size(); ++i) {
      const MomentArray& array = moments.arrays()[i];
      tensors[peft_name(slot.parameter.name) + std::string(array.suffix)] =
          read_pieces(array.dtype, moment_shape(array, slot.parameter.shape),
                      moment_pieces(array, plan_->layout.units[unit].flats[flat], slot),
                      moments.offset(i, optimizer.first_element(unit, flat)));
    }
  });
  return tensors;
}

void AdapterTensors::write(const NamedTensors& tensors, RankLink& link) {
  std::size_t used = 0;
  for_each_slot([&](std::size_t, std::size_t, const Slot&) { ++used; });
  if (link.is_first()) reject_unknown(tensors, used, "adapter");
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    std::vector<float> values(static_cast<std::size_t>(element_count(slot.parameter.shape)));
    if (link.is_first()) values = named_floats(tensors, peft_name(slot.parameter.name), slot.parameter.shape);
    const std::vector<std::byte> bytes = link.broadcast(std::as_bytes(std::span(values)), 0);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    write_parameter(unit, flat, slot, values);
  });
}

void AdapterTensors::write_optimizer(const NamedTensors& tensors, RankLink& link) {
  const AdapterOptimizer& optimizer = state_->optimizer();
  const AdapterMoments& moments = optimizer.moments();
  const auto named = [&](const Slot& slot, const MomentArray& array) -> const Tensor& {
    return named_moment(tensors, peft_name(slot.parameter.name), array, slot.parameter.shape);
  };
  std::size_t used = 0;
  for_each_slot([&](std::size_t, std::size_t, const Slot& slot) {
    used += moments.arrays().size();
    if (!link.is_first()) return;
    for (const MomentArray& array : moments.arrays()) named(slot, array);  // all are right before any is written
  });
  if (link.is_first()) reject_unknown(tensors, used, "optimizer state");
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    for (std::size_t i = 0; i < moments.arrays().size(); ++i) {
      const MomentArray& array = moments.arrays()[i];
      const std::span<const std::byte> mine =
          link.is_first() ? named(slot, array).bytes() : std::span<const std::byte>();
      write_pieces(link.broadcast(mine, 0), moment_pieces(array, plan_->layout.units[unit].flats[flat], slot),
                   moments.offset(i, optimizer.first_element(unit, flat)));
    }
  });
}

}  // namespace qshard::optimized
