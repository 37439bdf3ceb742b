#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "optimized/device/arena.h"
#include "optimized/device/pinned_buffer.h"
#include "optimized/device/stream.h"
#include "optimized/step_resources.h"

namespace qshard::optimized {

/// The decoder layers' inputs between the forward and the backward pass, first in, last out: in the arena, or on the
/// host. On the way there and back they are copied on a stream of their own while the arithmetic goes on, so two or
/// three of them lie in the arena at once.
class LayerInputs {
 public:
  /// on_host: memory for `layers` inputs of at most `bytes` bytes is pinned at once, none in a dry run.
  LayerInputs(std::int64_t layers, std::int64_t bytes, bool on_host, const StepResources& resources);

  /// Takes over the next layer's input, of `bytes` bytes; what is enqueued on the compute stream so far made it.
  void push(Arena::Piece input, std::int64_t bytes);
  /// The last input that was pushed and not yet popped, for what is enqueued on the compute stream from here on. Begins
  /// to bring back the one before.
  Arena::Piece pop();

 private:
  struct Input {
    Arena::Piece memory;  // empty while it is on the host alone
    std::int64_t bytes = 0;
    Event copied;  // to the host, or back
  };

  [[nodiscard]] std::byte* host_place(std::size_t layer) const;
  void bring_back(std::size_t layer);

  const StepResources* resources_;
  std::int64_t bytes_;
  bool on_host_;
  std::optional<PinnedBuffer> host_;
  std::optional<Stream> copy_;
  std::deque<Input> inputs_;
};

}  // namespace qshard::optimized
