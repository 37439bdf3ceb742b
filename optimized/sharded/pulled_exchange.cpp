#include "optimized/sharded/pulled_exchange.h"

#include <utility>

#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

constexpr std::size_t complete(const GradientBuffer& buffer) {
  return 2 * buffer.index;
}
constexpr std::size_t released(const GradientBuffer& buffer) {
  return 2 * buffer.index + 1;
}

}  // namespace

PulledExchange::PulledExchange(const ExchangeParts& parts)
    : parts_(parts), own_(static_cast<std::size_t>(parts.link->rank())) {
  for (Addresses* addresses : {&targets_, &sources_}) {
    for (std::vector<std::byte*>& of_range : addresses->of) of_range.resize(ranks());
  }
}

// Every rank writes what it has read to where it belongs.
void PulledExchange::deliver(std::span<const Delivery> deliveries, const std::byte* staging, cudaStream_t stream) {
  for (const Delivery& delivery : deliveries) {
    if (delivery.from != own_) continue;
    QSHARD_CUDA_CHECK(cudaMemcpyAsync(targets_.at(delivery.range, delivery.to) + delivery.to_offset,
                                      staging + delivery.from_offset, static_cast<std::size_t>(delivery.bytes),
                                      cudaMemcpyDefault, stream));
  }
}

void PulledExchange::gather(std::span<const Gathering> flats, cudaStream_t stream) {
  const std::size_t first = first_of_group(*parts_.layout, own_);
  for (const Gathering& flat : flats) {
    for (std::size_t shard = 0; shard < static_cast<std::size_t>(parts_.layout->shards); ++shard) {
      std::byte* const to = flat.gathered + static_cast<std::int64_t>(shard) * flat.shard_bytes;
      const std::byte* const from = sources_.at(flat.range, first + shard) + flat.offset;
      const auto copy = [&](std::int64_t begin, std::int64_t end) {
        if (begin == end) return;
        QSHARD_CUDA_CHECK(cudaMemcpyAsync(to + begin, from + begin, static_cast<std::size_t>(end - begin),
                                          cudaMemcpyDefault, stream));
      };
      const ByteRange in_place = shard == own_shard() ? flat.in_place : ByteRange{};
      copy(0, in_place.begin);
      copy(in_place.end, flat.shard_bytes);
    }
  }
}

const std::byte* PulledExchange::frozen(std::size_t shard) const {
  return sources_.at(ShardRange::frozen, first_of_group(*parts_.layout, own_) + shard);
}

void PulledExchange::set_signals(std::vector<std::byte*> counters) {
  signals_.emplace(kGradientChannels, std::move(counters), own_);
}

void PulledExchange::await_complete(const GradientBuffer& buffer, cudaStream_t stream) {
  signals_->signal(complete(buffer), stream);
  signals_->wait(complete(buffer), stream);
}

void PulledExchange::release(const GradientBuffer& buffer, cudaStream_t stream) {
  signals_->signal(released(buffer), stream);
}

void PulledExchange::await_release(const GradientBuffer& buffer, cudaStream_t stream) {
  signals_->wait(released(buffer), stream);
}

void PulledExchange::meet(cudaStream_t stream) const {
  QSHARD_CUDA_CHECK(cudaStreamSynchronize(stream));
  parts_.link->barrier();
}

std::int64_t PulledExchange::own_gradients(const GradientFlat& flat) const {
  return flat.begin + static_cast<std::int64_t>(own_shard()) * flat.shard_elements;
}

}  // namespace qshard::optimized
