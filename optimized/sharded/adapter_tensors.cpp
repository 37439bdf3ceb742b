#include "optimized/sharded/adapter_tensors.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <future>
#include <utility>

#include <cuda_runtime_api.h>

#include "core/base/processor.h"
#include "core/formats/peft_adapter.h"
#include "core/model/lora_init.h"
#include "core/training/adapter_state.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/device_buffer.h"

namespace qshard::optimized {

AdapterTensors::AdapterTensors(const ModelPlan& plan, const ShardPlaces& places, RankState& state, RankLink& link)
    : plan_(&plan), places_(&places), state_(&state), link_(&link) {}

namespace {

std::vector<ShardPiece> parameter_pieces(const Flat& flat, const Slot& slot) {
  return cut_into_pieces(slot.offset, slot.parameter.bytes(), flat.shard_bytes);
}

Tensor initial_values(LoraStart start, std::uint64_t seed, const Parameter& of) {
  const bool is_a = of.name.ends_with("lora_A.weight");
  const auto elements = static_cast<std::size_t>(element_count(of.shape));
  return from_floats(is_a ? lora_a_values(start, seed, of.name, of.shape) : std::vector<float>(elements, 0.0F),
                     of.dtype, of.shape);
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

std::byte* AdapterTensors::own_parameters(std::size_t unit, std::size_t flat) const {
  return state_->trainable() + places_->offset(unit, flat);
}

Tensor AdapterTensors::read_pieces(DType dtype, const Shape& shape, const std::vector<ShardPiece>& pieces,
                                   const std::byte* own) const {
  Tensor whole(dtype, shape);
  std::vector<Outgoing> outgoing;
  std::vector<Incoming> incoming;
  for (const ShardPiece& piece : pieces) {  // of the first group, which rank 0 is in
    const auto rank = static_cast<int>(piece.shard);
    const std::span<std::byte> bytes =
        whole.bytes().subspan(static_cast<std::size_t>(piece.in_parameter), static_cast<std::size_t>(piece.size));
    if (rank == link_->rank()) {
      QSHARD_CUDA_CHECK(cudaMemcpy(bytes.data(), own + piece.in_shard, bytes.size(), cudaMemcpyDeviceToHost));
      if (!link_->is_first()) outgoing.push_back({0, bytes});
    } else if (link_->is_first()) {
      incoming.push_back({rank, bytes});
    }
  }
  link_->exchange(outgoing, incoming);
  return whole;
}

bool AdapterTensors::is_own(const ShardPiece& piece) const {
  const auto rank = static_cast<std::size_t>(link_->rank());
  return first_of_group(plan_->layout, rank) + piece.shard == rank;
}

void AdapterTensors::write_pieces(std::span<const std::byte> values, const std::vector<ShardPiece>& pieces,
                                  std::byte* own) {
  for (const ShardPiece& piece : pieces) {
    if (!is_own(piece)) continue;
    upload(own + piece.in_shard, values.data() + piece.in_parameter, static_cast<std::size_t>(piece.size));
  }
}

void AdapterTensors::write_parameter(std::size_t unit, std::size_t flat, const Slot& slot,
                                     std::span<const float> values) {
  const Tensor whole = from_floats(values, slot.parameter.dtype, slot.parameter.shape);
  write_pieces(whole.bytes(), parameter_pieces(plan_->layout.units[unit].flats[flat], slot),
               own_parameters(unit, flat));
}

// Values are made on several threads, a tensor each, and only where this rank holds some of them.
void AdapterTensors::initialize(std::uint64_t seed) {
  struct Making {
    std::vector<ShardPiece> pieces;
    std::byte* own;
    std::future<Tensor> values;
  };
  std::deque<Making> making;
  const auto write_first = [&] {
    Making& first = making.front();
    write_pieces(first.values.get().bytes(), first.pieces, first.own);
    making.pop_front();
  };
  const auto threads = static_cast<std::size_t>(processor_share(link_->local_world_size()));
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    std::vector<ShardPiece> pieces = parameter_pieces(plan_->layout.units[unit].flats[flat], slot);
    if (std::ranges::none_of(pieces, [this](const ShardPiece& piece) { return is_own(piece); })) return;
    if (making.size() == threads) write_first();
    making.push_back({std::move(pieces), own_parameters(unit, flat),
                      std::async(std::launch::async, initial_values, plan_->options.lora.start, seed, slot.parameter)});
  });
  while (!making.empty()) write_first();
  finish_writing();
}

NamedTensors AdapterTensors::read() const {
  NamedTensors tensors;
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    Tensor whole =
        read_pieces(slot.parameter.dtype, slot.parameter.shape,
                    parameter_pieces(plan_->layout.units[unit].flats[flat], slot), own_parameters(unit, flat));
    if (link_->is_first()) tensors[peft_name(slot.parameter.name)] = std::move(whole);
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
      Tensor whole = read_pieces(array.dtype, moment_shape(array, slot.parameter.shape),
                                 moment_pieces(array, plan_->layout.units[unit].flats[flat], slot),
                                 moments.at(i, optimizer.first_element(unit, flat)));
      if (!link_->is_first()) continue;
      tensors[peft_name(slot.parameter.name) + std::string(array.suffix)] = std::move(whole);
    }
  });
  return tensors;
}

void AdapterTensors::write(const NamedTensors& tensors) {
  std::size_t used = 0;
  for_each_slot([&](std::size_t, std::size_t, const Slot&) { ++used; });
  if (link_->is_first()) reject_unknown(tensors, used, "adapter");
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    std::vector<float> values(static_cast<std::size_t>(element_count(slot.parameter.shape)));
    if (link_->is_first()) values = named_floats(tensors, peft_name(slot.parameter.name), slot.parameter.shape);
    const std::vector<std::byte> bytes = link_->broadcast(std::as_bytes(std::span(values)), 0);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    write_parameter(unit, flat, slot, values);
  });
  finish_writing();
}

void AdapterTensors::write_optimizer(const NamedTensors& tensors) {
  const AdapterOptimizer& optimizer = state_->optimizer();
  const AdapterMoments& moments = optimizer.moments();
  const auto named = [&](const Slot& slot, const MomentArray& array) -> const Tensor& {
    return named_moment(tensors, peft_name(slot.parameter.name), array, slot.parameter.shape);
  };
  std::size_t used = 0;
  for_each_slot([&](std::size_t, std::size_t, const Slot& slot) {
    used += moments.arrays().size();
    if (!link_->is_first()) return;
    for (const MomentArray& array : moments.arrays()) named(slot, array);  // all are right before any is written
  });
  if (link_->is_first()) reject_unknown(tensors, used, "optimizer state");
  for_each_slot([&](std::size_t unit, std::size_t flat, const Slot& slot) {
    for (std::size_t i = 0; i < moments.arrays().size(); ++i) {
      const MomentArray& array = moments.arrays()[i];
      const std::span<const std::byte> mine =
          link_->is_first() ? named(slot, array).bytes() : std::span<const std::byte>();
      write_pieces(link_->broadcast(mine, 0), moment_pieces(array, plan_->layout.units[unit].flats[flat], slot),
                   moments.at(i, optimizer.first_element(unit, flat)));
    }
  });
  finish_writing();
}

// cudaMemcpy from memory that is not pinned returns once the bytes are staged: what other streams read comes later.
void AdapterTensors::finish_writing() {
  QSHARD_CUDA_CHECK(cudaStreamSynchronize(nullptr));
}

}  // namespace qshard::optimized
