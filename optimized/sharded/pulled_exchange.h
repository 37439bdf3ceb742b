#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <vector>

#include "optimized/sharded/exchange.h"
#include "optimized/sharded/stream_signals.h"

namespace qshard::optimized {

/// Channels of the signals about two buffers of gradients.
inline constexpr std::size_t kGradientChannels = 4;

/// What the peer and the host form share: every rank's bytes have an address here, and the copy engine moves them; the
/// ranks' streams wait for each other by signals.
class PulledExchange : public Exchange {
 public:
  void deliver(std::span<const Delivery> deliveries, const std::byte* staging, cudaStream_t stream) override;
  /// Copies within a GPU are kernels, which take multiprocessors and wait for them: what is read in place is not
  /// copied.
  void gather(std::span<const Gathering> flats, cudaStream_t stream) override;
  [[nodiscard]] std::size_t own_shard() const override { return own_ - first_of_group(*parts_.layout, own_); }
  [[nodiscard]] const std::byte* frozen(std::size_t shard) const override;
  void release(const GradientBuffer& buffer, cudaStream_t stream) override;
  void await_release(const GradientBuffer& buffer, cudaStream_t stream) override;

 protected:
  /// Where each rank's ranges begin; index = range, then rank.
  struct Addresses {
    std::array<std::vector<std::byte*>, 3> of;

    [[nodiscard]] std::byte*& at(ShardRange range, std::size_t rank) {
      return of[static_cast<std::size_t>(range)][rank];
    }
    [[nodiscard]] std::byte* at(ShardRange range, std::size_t rank) const {
      return of[static_cast<std::size_t>(range)][rank];
    }
  };

  explicit PulledExchange(const ExchangeParts& parts);

  /// counters: as StreamSignals wants them.
  void set_signals(std::vector<std::byte*> counters);
  /// Work on `stream` after this follows what every rank's had before it.
  void await_complete(const GradientBuffer& buffer, cudaStream_t stream);

  /// Waits for the stream, then for all ranks.
  void meet(cudaStream_t stream) const;
  /// The first of the gradients of this rank's shard of a flat, in the buffer.
  [[nodiscard]] std::int64_t own_gradients(const GradientFlat& flat) const;
  [[nodiscard]] std::size_t ranks() const { return static_cast<std::size_t>(parts_.layout->world_size); }
  [[nodiscard]] std::size_t own() const { return own_; }
  [[nodiscard]] const ExchangeParts& parts() const { return parts_; }

  Addresses targets_;  // of deliveries
  Addresses sources_;  // of what is gathered

 private:
  ExchangeParts parts_;
  std::size_t own_;
  std::optional<StreamSignals> signals_;
};

}  // namespace qshard::optimized
