#include "bench/shard_layout/gathered_layout.h"

#include <algorithm>
#include <utility>

#include "bench/shard_layout/byte_pattern.h"
#include "core/base/fnv_hash.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/stream.h"

namespace qshard::bench {
namespace {

using namespace optimized;

std::int64_t stage_bytes(const ShardLayout& layout, std::size_t stage) {
  std::int64_t bytes = 0;
  for (const Unit& unit : layout.units) bytes += unit.stage == stage ? gathered_bytes(layout, unit) : 0;
  return bytes;
}

std::unique_ptr<Exchange> make_exchange(const ExchangeParts& parts, const Way& way, std::byte* memory,
                                        std::optional<PeerMemory>& peers, std::optional<SharedHostMemory>& host) {
  switch (way.transport) {
    case Transport::nccl:
      return make_nccl_exchange(parts, *way.communicator);
    case Transport::host:
      return make_host_exchange(parts, host.emplace(HostPlaces(*parts.layout, *parts.places), *parts.link));
    default:
      return make_peer_exchange(parts, peers.emplace(memory, *parts.link));
  }
}

/// What one shard of a flat holds.
void fill_shard(const Flat& flat, std::size_t shard, std::byte* out, cudaStream_t stream) {
  QSHARD_CUDA_CHECK(cudaMemsetAsync(out, 0, static_cast<std::size_t>(flat.shard_bytes), stream));
  for (const Slot& slot : flat.slots) {
    for (const ShardPiece& piece : cut_into_pieces(slot.offset, slot.parameter.bytes(), flat.shard_bytes)) {
      if (piece.shard != shard) continue;
      fill_pattern(fnv_hash(slot.parameter.name), piece.in_parameter, piece.size, out + piece.in_shard, stream);
    }
  }
}

}  // namespace

GatheredLayout::GatheredLayout(const ShardLayout& layout, std::int64_t replicated, const Way& way, RankLink& link)
    : layout_(&layout), link_(&link), stages_(layout.units.back().stage + 1), places_(layout, 0) {
  const auto take = [&](Arena& arena) {
    ShardMemory shards(places_, way.offload, arena);
    const std::int64_t bytes = exchange_bytes(layout, way.transport);
    return std::pair(std::move(shards), bytes == 0 ? Arena::Piece{} : arena.take(bytes, "exchange"));
  };
  Arena planned(nullptr, 0);
  take(planned);
  memory_ = DeviceBuffer(static_cast<std::size_t>(planned.peak()));
  arena_.emplace(memory_.as<std::byte>(), planned.peak());
  auto [shards, room] = take(*arena_);
  shards_.emplace(std::move(shards));
  room_ = std::move(room);
  exchange_ = make_exchange({layout_, &places_, &*shards_, &room_, link_}, way, memory_.as<std::byte>(), peers_, host_);
  if (replicated > 0) replicated_ = DeviceBuffer(static_cast<std::size_t>(replicated));
  fill(layout);
  if (layout.shards == 1) return;
  std::int64_t largest = 0;
  for (std::size_t stage = 0; stage < stages_; ++stage) largest = std::max(largest, stage_bytes(layout, stage));
  for (DeviceBuffer& buffer : buffers_) {
    buffer = DeviceBuffer(static_cast<std::size_t>(largest));
    buffer.fill(0xA5);
  }
}

void GatheredLayout::fill(const ShardLayout& layout) {
  const Stream stream;
  const auto own = static_cast<std::size_t>(link_->rank());
  const std::size_t own_shard = own - first_of_group(layout, own);
  std::int64_t largest = 0;
  for (const Unit& unit : layout.units) {
    for (const Flat& flat : unit.flats) largest = std::max(largest, flat.shard_bytes);
  }
  const DeviceBuffer staging(static_cast<std::size_t>(largest));
  for (std::size_t unit = 0; unit < layout.units.size(); ++unit) {
    for (std::size_t index = 0; index < layout.units[unit].flats.size(); ++index) {
      const Flat& flat = layout.units[unit].flats[index];
      const std::int64_t offset = places_.offset(unit, index);
      if (flat.trainable) {
        fill_shard(flat, own_shard, shards_->at(ShardRange::trainable) + offset, stream.get());
        continue;
      }
      fill_shard(flat, own_shard, staging.as<std::byte>(), stream.get());
      std::vector<Delivery> deliveries;
      for (std::size_t rank = 0; rank < static_cast<std::size_t>(layout.world_size); ++rank) {
        deliveries.push_back({rank, 0, rank, ShardRange::frozen, offset, flat.shard_bytes});
      }
      exchange_->deliver(deliveries, staging.as<std::byte>(), stream.get());
    }
  }
  exchange_->finish_loading(stream.get());
  exchange_->publish(stream.get());
  stream.synchronize();
  link_->barrier();
}

void GatheredLayout::close() {
  exchange_.reset();
  peers_.reset();
  link_->barrier();
}

void GatheredLayout::gather_stage(std::size_t stage, std::byte* to, cudaStream_t stream) {
  std::vector<Gathering> flats;
  for (std::size_t unit = 0; unit < layout_->units.size(); ++unit) {
    const Unit& of = layout_->units[unit];
    if (of.stage != stage) continue;
    for (std::size_t index = 0; index < of.flats.size(); ++index) {
      const Flat& flat = of.flats[index];
      flats.push_back({range_of(flat), places_.offset(unit, index), flat.shard_bytes, to, {}});
      to += flat.shard_bytes * layout_->shards;
    }
  }
  exchange_->gather(flats, stream);
}

void GatheredLayout::gather(cudaStream_t stream) {
  for (std::size_t stage = 0; stage < stages_; ++stage) {
    gather_stage(stage, buffers_[stage % 2].as<std::byte>(), stream);
  }
}

std::int64_t GatheredLayout::count_different_bits() {
  const Stream stream;
  DeviceBuffer different(sizeof(unsigned long long));
  different.fill(0);
  for (std::size_t stage = 0; stage < stages_; ++stage) {
    DeviceBuffer& buffer = buffers_[stage % 2];
    if (layout_->shards > 1) gather_stage(stage, buffer.as<std::byte>(), stream.get());
    const std::byte* gathered = buffer.as<std::byte>();
    for (std::size_t unit = 0; unit < layout_->units.size(); ++unit) {
      const Unit& of = layout_->units[unit];
      if (of.stage != stage) continue;
      for (std::size_t index = 0; index < of.flats.size(); ++index) {
        const Flat& flat = of.flats[index];
        const std::byte* at =
            layout_->shards > 1 ? gathered : shards_->at(range_of(flat)) + places_.offset(unit, index);
        for (const Slot& slot : flat.slots) {
          bench::count_different_bits(fnv_hash(slot.parameter.name), slot.parameter.bytes(), at + slot.offset,
                                      different.as<unsigned long long>(), stream.get());
        }
        gathered += flat.shard_bytes * layout_->shards;
      }
    }
  }
  stream.synchronize();
  return static_cast<std::int64_t>(different.download<unsigned long long>().front());
}

}  // namespace qshard::bench
