#include "reference/sharded_moments.h"

#include <algorithm>

#include "core/formats/peft_adapter.h"
#include "reference/adamw.h"
#include "reference/adamw8bit.h"
#include "reference/collectives.h"

namespace qshard::reference {

ShardedMoments::ShardedMoments(const Flat& flat, const AdamWOptions& options, std::size_t ranks)
    : flat_(&flat), options_(options), arrays_(moment_arrays(options.moments, flat.dtype)) {
  const auto elements = flat.shard_bytes / static_cast<std::int64_t>(size_of(flat.dtype));
  for (const MomentArray& array : arrays_) {
    shards_.emplace_back(ranks, Tensor(array.dtype, moment_shape(array, {elements})));
  }
}

std::int64_t ShardedMoments::bytes() const {
  std::int64_t bytes = 0;
  for (const std::vector<Tensor>& ranks : shards_) bytes += std::ssize(ranks.front().bytes());
  return bytes;
}

void ShardedMoments::update(std::size_t rank, std::span<float> parameter, std::span<const float> gradient,
                            double learning_rate, std::int64_t step) {
  if (options_.moments != MomentFormat::blockwise_8bit) {
    return update_floats(rank, parameter, gradient, learning_rate, step);
  }
  adamw8bit_update(parameter, gradient, {shards_[0][rank].as<std::uint8_t>(), shards_[1][rank].as<float>()},
                   {shards_[2][rank].as<std::uint8_t>(), shards_[3][rank].as<float>()}, options_, flat_->dtype,
                   learning_rate, step);
}

void ShardedMoments::update_floats(std::size_t rank, std::span<float> parameter, std::span<const float> gradient,
                                   double learning_rate, std::int64_t step) {
  Tensor& exp_avg = shards_[0][rank];
  Tensor& exp_avg_sq = shards_[1][rank];
  std::vector<float> m = to_floats(exp_avg.view());
  std::vector<float> v = to_floats(exp_avg_sq.view());
  adamw_update(parameter, gradient, m, v, options_, flat_->dtype, learning_rate, step);
  exp_avg = from_floats(m, exp_avg.dtype(), exp_avg.shape());
  exp_avg_sq = from_floats(v, exp_avg_sq.dtype(), exp_avg_sq.shape());
}

std::vector<std::byte> ShardedMoments::whole(std::size_t array, const ProcessGroup& group, std::size_t parts) const {
  const std::vector<Tensor>& shards = shards_[array];
  std::vector<std::byte> all(shards.front().bytes().size() * parts);
  RankBuffers<const std::byte> mine;
  for (const Tensor& shard : shards) mine.push_back(shard.bytes());
  all_gather(group, mine, {std::span(all)});
  return all;
}

void ShardedMoments::save(const ProcessGroup& group, std::size_t parts, NamedTensors& tensors) const {
  for (std::size_t i = 0; i < arrays_.size(); ++i) {
    const MomentArray& array = arrays_[i];
    const std::vector<std::byte> all = whole(i, group, parts);
    if (!group.has_first()) continue;
    for (const Slot& slot : flat_->slots) {
      Tensor tensor(array.dtype, moment_shape(array, slot.parameter.shape));
      const std::int64_t begin = moment_bytes(array, slot.offset / static_cast<std::int64_t>(size_of(flat_->dtype)));
      std::copy_n(all.begin() + begin, tensor.bytes().size(), tensor.bytes().begin());
      tensors[peft_name(slot.parameter.name) + std::string(array.suffix)] = std::move(tensor);
    }
  }
}

std::size_t ShardedMoments::load(const ProcessGroup& group, std::size_t parts, const NamedTensors& tensors) {
  for (std::size_t i = 0; i < arrays_.size(); ++i) {
    for (const Slot& slot : flat_->slots) {
      std::vector<std::byte> values;
      if (group.has_first()) {
        const auto bytes =
            named_moment(tensors, peft_name(slot.parameter.name), arrays_[i], slot.parameter.shape).bytes();
        values.assign(bytes.begin(), bytes.end());
      }
      broadcast(group, values);
      for (const ShardPiece& piece : moment_pieces(arrays_[i], *flat_, slot)) {
        for (std::size_t rank = 0; rank < shards_[i].size(); ++rank) {
          if ((group.first_rank() + rank) % parts != piece.shard) continue;
          std::copy_n(values.begin() + piece.in_parameter, piece.size,
                      shards_[i][rank].bytes().begin() + piece.in_shard);
        }
      }
    }
  }
  return arrays_.size() * flat_->slots.size();
}

}  // namespace qshard::reference
