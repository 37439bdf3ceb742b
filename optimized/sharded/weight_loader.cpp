#include "optimized/sharded/weight_loader.h"

#include <algorithm>
#include <deque>
#include <future>
#include <iterator>
#include <utility>

#include "core/tensor/codebook.h"
#include "optimized/device/cuda_check.h"
#include "optimized/double_quant.h"
#include "optimized/quantize.h"
#include "optimized/sharded/weight_table.h"

namespace qshard::optimized {

namespace {

std::int64_t aligned(std::int64_t bytes) {
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

/// A tensor, and whether this run quantizes it.
struct Turn {
  std::string name;
  bool quantizes = false;
};

/// A rank's tensors in the order of its turns: the next ones are read from the disk and checked while it works on one.
class TurnsAhead {
 public:
  TurnsAhead(const WeightSource& source, std::vector<Turn> turns) : source_(&source), turns_(std::move(turns)) {}

  /// Waits for the tensor of the next turn.
  void next() {
    while (reading_.size() < kAhead && started_ < turns_.size()) {
      reading_.push_back(std::async(std::launch::async, [this, turn = &turns_[started_++]] { read(*turn); }));
    }
    reading_.front().get();
    reading_.pop_front();
  }

 private:
  void read(const Turn& turn) const {
    source_->read_ahead(turn.name);
    if (turn.quantizes) source_->check_quantizable(turn.name);
  }

  static constexpr std::size_t kAhead = 4;

  const WeightSource* source_;
  std::vector<Turn> turns_;
  std::size_t started_ = 0;
  std::deque<std::future<void>> reading_;
};

void upload(const void* from, std::size_t bytes, std::byte* to, cudaStream_t stream) {
  QSHARD_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
}

}  // namespace

WeightLoader::WeightLoader(const ShardLayout& layout, const ShardPlaces& places,
                           const std::map<std::string, Weight4bitInfo>& infos, const QuantizationOptions& quantization,
                           const WeightSource& source)
    : layout_(&layout), places_(&places), infos_(&infos), quantization_(quantization), source_(&source) {
  const SlotIndex index(layout);
  for (std::size_t unit = 0; unit < layout.units.size(); ++unit) {
    for (std::size_t flat = 0; flat < layout.units[unit].flats.size(); ++flat) {
      const std::vector<Slot>& slots = layout.units[unit].flats[flat].slots;
      for (std::size_t slot = 0; slot < slots.size(); ++slot) {
        const ParameterKind kind = slots[slot].parameter.kind;
        if (kind == ParameterKind::dense) items_.push_back(make_dense({unit, flat, slot}));
        if (kind == ParameterKind::codes) items_.push_back(make_4bit({unit, flat, slot}, index));
      }
    }
  }
}

const Slot& WeightLoader::slot(const Part& part) const {
  return layout_->units[part.place.unit].flats[part.place.flat].slots[part.place.slot];
}

WeightLoader::Item WeightLoader::make_dense(const SlotPlace& place) {
  Item item;
  item.parts.push_back({place, 0});
  const Parameter& parameter = slot(item.parts[0]).parameter;
  item.name = parameter.name;
  staging_bytes_ = std::max(staging_bytes_, parameter.bytes());
  return item;
}

WeightLoader::Item WeightLoader::make_4bit(const SlotPlace& place, const SlotIndex& index) {
  Item item;
  item.in_4bit = true;
  std::int64_t bytes = 0;
  const auto add = [&](const SlotPlace& of) {
    item.parts.push_back({of, bytes});
    bytes += aligned(slot(item.parts.back()).parameter.bytes());
  };
  add(place);
  const Parameter& codes = slot(item.parts[0]).parameter;
  item.name = codes.name;
  item.is_stored = source_->prequantized(item.name).has_value();
  for (const ParameterRole role : {ParameterRole::absmax, ParameterRole::nested_absmax}) {
    const SlotPlace* found = index.find(layout_->units[place.unit].stage, role, codes.projection);
    if (found != nullptr) add(*found);
  }
  const auto info = infos_->find(item.name);
  item.constants = bytes;
  item.constants_index = std::distance(infos_->begin(), info);
  staging_bytes_ = std::max(staging_bytes_, bytes + kNestedConstants * 4);
  if (item.is_stored) return item;
  const std::int64_t elements = element_count(info->second.shape);
  const DType written = source_->written_dtype(item.name, info->second.dtype);
  raw_bytes_ = std::max(raw_bytes_, elements * static_cast<std::int64_t>(size_of(written)));
  const std::int64_t blocks = block_count(elements, info->second.blocksize);
  workspace_bytes_ = std::max(workspace_bytes_, static_cast<std::int64_t>(nested_workspace_bytes(blocks)));
  return item;
}

WeightLoader::Memory WeightLoader::take_memory(Arena& arena) const {
  Memory memory;
  memory.staging = arena.take(staging_bytes_, "loading");
  memory.raw = arena.take(raw_bytes_, "loading");
  memory.workspace = arena.take(workspace_bytes_, "loading");
  memory.map = arena.take(256 * 4, "loading");
  return memory;
}

void WeightLoader::reserve(Arena& arena) const {
  [[maybe_unused]] const Memory given_back_at_the_end = take_memory(arena);
}

void WeightLoader::load(Exchange& exchange, std::size_t rank, Arena& arena, cudaStream_t stream) const {
  const Memory memory = take_memory(arena);
  upload(dynamic_map().data(), 256 * 4, memory.map.as<std::byte>(), stream);
  const auto ranks = static_cast<std::size_t>(layout_->world_size);
  std::vector<Turn> of_rank;
  for (std::size_t item = rank; item < items_.size(); item += ranks) {
    of_rank.push_back({items_[item].name, items_[item].in_4bit && !items_[item].is_stored});
  }
  TurnsAhead turns(*source_, std::move(of_rank));
  for (std::size_t first = 0; first < items_.size(); first += ranks) {
    if (first + rank < items_.size()) {
      turns.next();
      stage(items_[first + rank], memory, stream);
    }
    std::vector<Delivery> deliveries;
    for (std::size_t from = 0; from < ranks && first + from < items_.size(); ++from) {
      add_deliveries(items_[first + from], from, deliveries);
    }
    exchange.deliver(deliveries, memory.staging.as<std::byte>(), stream);
  }
  exchange.finish_loading(stream);
}

void WeightLoader::stage(const Item& item, const Memory& memory, cudaStream_t stream) const {
  if (!item.in_4bit) {
    const Parameter& parameter = slot(item.parts[0]).parameter;
    source_->write(item.name, parameter.shape, parameter.dtype, true, memory.staging.as(), stream);
  } else if (item.is_stored) {
    stage_stored(item, memory, stream);
  } else {
    stage_quantized(item, memory, stream);
    if (source_->wants_quantized()) give_back(item, memory, stream);
  }
}

void WeightLoader::stage_quantized(const Item& item, const Memory& memory, cudaStream_t stream) const {
  auto* staging = memory.staging.as<std::byte>();
  void* raw = memory.raw.as();
  const auto* map = memory.map.as<float>();
  const Weight4bitInfo& info = infos_->at(item.name);
  const std::int64_t elements = element_count(info.shape);
  const DType written = source_->written_dtype(item.name, info.dtype);
  source_->write(item.name, info.shape, info.dtype, false, raw, stream);
  auto* codes = reinterpret_cast<std::uint8_t*>(staging + item.parts[0].offset);
  std::byte* absmax = staging + item.parts[1].offset;
  if (!info.nested) {
    quantize(raw, written, elements, info.quant_type, info.blocksize, codes, reinterpret_cast<float*>(absmax), stream);
    return;
  }
  auto* constants = reinterpret_cast<float*>(staging + item.constants);
  const NestedOutput nested{reinterpret_cast<std::uint8_t*>(absmax),
                            reinterpret_cast<float*>(staging + item.parts[2].offset), constants + 256};
  QSHARD_CUDA_CHECK(cudaMemcpyAsync(constants, map, 256 * 4, cudaMemcpyDeviceToDevice, stream));
  quantize_nested(raw, written, elements, info.quant_type, info.blocksize, codes, map, nullptr, nested,
                  memory.workspace.as(), static_cast<std::size_t>(workspace_bytes_), stream);
}

void WeightLoader::give_back(const Item& item, const Memory& memory, cudaStream_t stream) const {
  const auto* staging = memory.staging.as<std::byte>();
  Weight4bit weight{.info = infos_->at(item.name), .codes = {}, .absmax = {}, .absmax_codes = {}, .nested_absmax = {}};
  const auto download = [&](auto& values, std::int64_t count, std::int64_t offset) {
    values.resize(static_cast<std::size_t>(count));
    QSHARD_CUDA_CHECK(cudaMemcpyAsync(values.data(), staging + offset, values.size() * sizeof(values[0]),
                                      cudaMemcpyDeviceToHost, stream));
  };
  const std::int64_t elements = element_count(weight.info.shape);
  const std::int64_t blocks = block_count(elements, weight.info.blocksize);
  download(weight.codes, packed_bytes(elements), item.parts[0].offset);
  if (weight.info.nested) {
    download(weight.absmax_codes, blocks, item.parts[1].offset);
    download(weight.nested_absmax, block_count(blocks, kNestedBlocksize), item.parts[2].offset);
    std::vector<float> constants;
    download(constants, 257, item.constants);
    QSHARD_CUDA_CHECK(cudaStreamSynchronize(stream));
    std::copy_n(constants.begin(), 256, weight.info.nested_map.begin());
    weight.info.offset = constants[256];
  } else {
    download(weight.absmax, blocks, item.parts[1].offset);
    QSHARD_CUDA_CHECK(cudaStreamSynchronize(stream));
  }
  source_->quantized(item.name, weight);
}

void WeightLoader::stage_stored(const Item& item, const Memory& memory, cudaStream_t stream) const {
  auto* staging = memory.staging.as<std::byte>();
  const Weight4bit weight = source_->read_4bit(item.name);
  upload(weight.codes.data(), weight.codes.size(), staging + item.parts[0].offset, stream);
  std::byte* absmax = staging + item.parts[1].offset;
  if (weight.info.nested) {
    upload(weight.absmax_codes.data(), weight.absmax_codes.size(), absmax, stream);
    upload(weight.nested_absmax.data(), weight.nested_absmax.size() * 4, staging + item.parts[2].offset, stream);
    upload(weight.info.nested_map.data(), 256 * 4, staging + item.constants, stream);
    upload(&weight.info.offset, 4, staging + item.constants + 256 * 4, stream);
  } else {
    upload(weight.absmax.data(), weight.absmax.size() * 4, absmax, stream);
  }
  QSHARD_CUDA_CHECK(cudaStreamSynchronize(stream));  // the weight's memory goes
}

void WeightLoader::add_deliveries(const Item& item, std::size_t from, std::vector<Delivery>& deliveries) const {
  const auto ranks = static_cast<std::size_t>(layout_->world_size);
  const auto shards = static_cast<std::size_t>(layout_->shards);
  for (const Part& part : item.parts) {
    const Slot& of = slot(part);
    const std::int64_t shard_bytes = layout_->units[part.place.unit].flats[part.place.flat].shard_bytes;
    const std::int64_t shard = places_->offset(part.place.unit, part.place.flat);
    for (const ShardPiece& piece : cut_into_pieces(of.offset, of.parameter.bytes(), shard_bytes)) {
      for (std::size_t to = piece.shard; to < ranks; to += shards) {  // of every group
        deliveries.push_back(
            {from, part.offset + piece.in_parameter, to, ShardRange::frozen, shard + piece.in_shard, piece.size});
      }
    }
  }
  if (!item.in_4bit || !infos_->at(item.name).nested) return;
  constexpr std::int64_t kBytes = kNestedConstants * 4;
  for (std::size_t to = 0; to < ranks; ++to) {
    deliveries.push_back({from, item.constants, to, ShardRange::constants, item.constants_index * kBytes, kBytes});
  }
}

}  // namespace qshard::optimized
