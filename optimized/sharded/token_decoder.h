#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/training/decoder.h"
#include "core/training/token_batch.h"
#include "optimized/device/captured_graph.h"
#include "optimized/device/pinned_buffer.h"
#include "optimized/llama_decode.h"
#include "optimized/sharded/device_batch.h"
#include "optimized/sharded/rope_tables.h"
#include "optimized/sharded/sharded_step.h"

namespace qshard::optimized {

/// The Decoder of one rank on a GPU. Prompts run through the layers as packed rows, several prompts at once; then each
/// call of next() is one token of every row. Keys and values of all layers lie in the arena, so that with the plans it
/// is known before how much memory it takes.
///
/// Where the whole model lies on this GPU a token of all rows is captured as one graph at the second call of next() and
/// launched as a whole from then on. Otherwise each layer is gathered as in evaluation, and every rank computes all
/// rows.
class TokenDecoder : public Decoder {
 public:
  /// `step` gives weights, arena and stream, and must outlive the decoder. In a dry run only sizes are taken. Throws
  /// Error(bad_input) where a model's rotary embedding depends on the length of the row and the rows may be longer than
  /// it was trained for, since the keys so far would then have to be rotated anew. captures: whether tokens become a
  /// graph; false where units are gathered. The bits do not depend on it.
  TokenDecoder(ShardedStep& step, const DecoderBound& bound, bool captures);

  TokenLogits start(std::span<const std::vector<std::int32_t>> prompts) override;
  TokenLogits next(std::span<const std::int32_t> tokens) override;
  std::vector<std::int32_t> start_greedily(std::span<const std::vector<std::int32_t>> prompts) override;
  std::vector<std::int32_t> next_greedily(std::span<const std::int32_t> tokens) override;

  /// In a dry run: asks the arena for what the largest prompts and a token need.
  void reserve();

 private:
  using Prompts = std::span<const std::vector<std::int32_t>>;

  // The rows' tokens, laid out alike on the host and on the device.
  struct State {
    std::int32_t* tokens = nullptr;     // the new one of each row
    std::int32_t* positions = nullptr;  // where it is in its row
    std::int32_t* lengths = nullptr;    // tokens of the row, the new one included
    std::int32_t* last = nullptr;       // after a prefill: the place of each row's last token in its batch
    State() = default;
    State(std::byte* memory, std::int64_t rows);
    static std::int64_t bytes(std::int64_t rows) { return 4 * rows * std::int64_t{sizeof(std::int32_t)}; }
  };

  [[nodiscard]] const ShardedStep::Parts& parts() const { return step_->parts(); }
  [[nodiscard]] const StepResources& resources() const { return parts().resources; }
  [[nodiscard]] bool dry_run() const { return resources().dry_run(); }
  [[nodiscard]] std::int64_t rows() const { return static_cast<std::int64_t>(lengths_.size()); }
  [[nodiscard]] DType dtype() const { return parts().options->dtype; }
  [[nodiscard]] std::int64_t element() const { return static_cast<std::int64_t>(size_of(dtype())); }
  [[nodiscard]] std::int64_t row_bytes() const { return parts().config->hidden_size * element(); }
  [[nodiscard]] KeyValueCacheShape cache_shape(std::int64_t rows) const;
  [[nodiscard]] LayerCache layer_cache(std::int64_t layer) const;

  void begin(Prompts prompts);
  void prefill(Prompts prompts, std::int64_t first_row);
  void prefill_layer(std::int64_t layer, const TokenRows& tokens, std::int64_t first_row, const Arena::Piece& x,
                     const Arena::Piece& y);
  template <typename Use>
  void with_layer(std::int64_t layer, const Use& use);
  void enqueue_head(bool has_branch);
  void enqueue_token();
  void run_token();
  void advance(std::span<const std::int32_t> tokens);
  void check_token(std::int32_t token) const;
  [[nodiscard]] TokenLogits read_logits();
  [[nodiscard]] std::vector<std::int32_t> read_best();

  ShardedStep* step_;
  bool captures_;
  DecoderBound bound_;
  BatchBound prefill_bound_;
  DeviceBatch batch_;
  RopeTables rope_;
  Arena::Piece caches_;  // [layers][keys, values][rows, capacity, kv_heads, head_dim]
  Arena::Piece state_;
  Arena::Piece residual_;  // [rows, hidden]
  Arena::Piece branch_;
  Arena::Piece logits_;  // [rows, vocab]
  Arena::Piece best_;    // [rows] argmax of the logits
  std::unique_ptr<PinnedBuffer> host_state_;
  std::unique_ptr<PinnedBuffer> host_logits_;
  std::unique_ptr<PinnedBuffer> host_best_;
  State host_;
  State device_;
  std::vector<std::int64_t> lengths_;  // of the rows
  std::vector<bool> ended_;
  std::int64_t warm_rows_ = 0;  // rows of the last token that was not captured
  std::int64_t graph_rows_ = 0;
  std::unique_ptr<CapturedGraph> graph_;
};

}  // namespace qshard::optimized
