#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/sharding/shard_layout.h"
#include "optimized/device/arena.h"
#include "optimized/device/stream.h"
#include "optimized/sharded/device_shards.h"
#include "optimized/sharded/exchange.h"

namespace qshard::optimized {

/// Brings the units of a stage together on this rank, one stage ahead of the arithmetic, on a stream of its own.
///
/// FULL_SHARD has two buffers of the largest decoder layer: while the arithmetic uses one, the other is filled. A
/// buffer keeps its stage until another stage takes its place, so the two layers at which the forward pass turns into
/// the backward pass are not gathered again, nor the frozen flats of the two at which the next step begins.
/// SHARD_GRAD_OP has a buffer a stage, and gathers frozen flats once. NO_SHARD, and a world of one rank, has none: the
/// shards are the whole; but frozen shards that stay in host memory are brought like any others. The head, and the
/// embedding where it is needed whole, have buffers of their own that live only as long as their use.
///
/// A parameter of a decoder layer that lies wholly in this rank's own shard, on this device, is read there.
///
/// The sequence of gathers is the same on every rank, whatever the ranks compute in between.
class UnitGatherer {
 public:
  /// exchange: null in a dry run. The references must outlive this object.
  UnitGatherer(const ShardLayout& layout, const ShardPlaces& places, const ShardMemory& memory, Exchange* exchange,
               cudaStream_t compute, Arena& arena);

  /// Begins to gather a decoder layer's stage where a buffer is free for it; otherwise does nothing.
  void prefetch(std::size_t stage);
  /// From here on what is enqueued on the compute stream may read the stage.
  void acquire(std::size_t stage);
  /// What was enqueued on the compute stream so far is the last that reads the stage.
  void release(std::size_t stage);
  /// Gathered trainable shards are of the past: gathers them, and only them, again at the next use.
  void invalidate();

  /// The shards on this device are the whole: nothing is gathered, and flats stay where they are.
  [[nodiscard]] bool replicated() const { return layout_->shards == 1 && !memory_->frozen.empty(); }

  /// A flat of an acquired end, the embedding's or the head's, whole. Null in a dry run.
  [[nodiscard]] const std::byte* flat(std::size_t unit, std::size_t flat) const;
  /// A parameter of an acquired stage, whole. Null in a dry run.
  [[nodiscard]] const std::byte* parameter(std::size_t unit, std::size_t flat, const Slot& slot) const;

 private:
  struct Buffer {
    Arena::Piece memory;
    std::size_t stage = kNone;
    bool in_use = false;
    bool outdated = false;  // its trainable flats are
    std::int64_t used_at = 0;
    Event ready;  // on the copy stream: the stage is there
    Event freed;  // on the compute stream: nobody reads the stage any more
  };
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  /// The embedding or the head.
  [[nodiscard]] bool is_end(std::size_t stage) const { return stage == 0 || stage + 1 == stages_; }
  /// Where the own shard of the flat begins in it.
  [[nodiscard]] std::int64_t own_begin(const Flat& flat) const { return own_shard_ * flat.shard_bytes; }
  [[nodiscard]] ByteRange in_own_shard(const Flat& flat) const;
  Buffer* holder_of(std::size_t stage);
  Buffer* free_buffer();
  void fill(Buffer& buffer, std::size_t stage);
  void gather(Buffer& buffer, bool trainable_alone);
  void gather_at_end(std::size_t stage);

  const ShardLayout* layout_;
  const ShardPlaces* places_;
  const ShardMemory* memory_;
  Exchange* exchange_;
  cudaStream_t compute_;
  Arena* arena_;
  std::optional<Stream> copy_;  // none where nothing is gathered and in a dry run
  std::size_t stages_;
  std::int64_t own_shard_ = 0;
  std::vector<std::int64_t> stage_bytes_;         // of a stage, gathered
  std::vector<std::int64_t> in_stage_;            // index = unit: bytes from the start of its stage's buffer
  std::vector<std::vector<ByteRange>> in_place_;  // index = unit, flat: what of the own shard is read there
  std::vector<Buffer> buffers_;                   // of decoder layers
  std::array<Buffer, 2> ends_;                    // of the embedding and of the head
  std::int64_t clock_ = 0;
};

}  // namespace qshard::optimized
