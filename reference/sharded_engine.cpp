#include "reference/sharded_engine.h"

#include <array>
#include <cmath>
#include <tuple>
#include <utility>

#include "core/base/error.h"
#include "core/formats/bnb_checkpoint.h"
#include "reference/adamw.h"
#include "reference/collectives.h"
#include "reference/decoder.h"
#include "reference/sharded_adapter.h"
#include "reference/sharded_optimizer.h"
#include "reference/sharded_step.h"

namespace qshard::reference {
namespace {

ShardLayout make_layout(const HfCheckpoint& checkpoint, const EngineOptions& options) {
  const PrequantizedInfo prequantized = [&checkpoint](const std::string& name,
                                                      const Shape&) -> std::optional<Weight4bitInfo> {
    if (!has_weight4bit(checkpoint, name)) return std::nullopt;
    return read_weight4bit_info(checkpoint, name);
  };
  return plan_shards(
      list_model_stages(checkpoint.config(), options.quantization, options.lora, options.dtype, prequantized),
      options.world_size, options.sharding, options.shard_group);
}

class ShardedEngine : public TrainingEngine {
 public:
  ShardedEngine(const HfCheckpoint& checkpoint, const EngineOptions& options, RankLink* link)
      : options_(options),
        config_(checkpoint.config()),
        group_(make_process_group(options.world_size, link)),
        ranks_(group_.local_ranks),
        layout_(make_layout(checkpoint, options)),
        weights_(layout_, checkpoint, options.quantization, group_, ranks_),
        optimizer_(weights_, layout_.shards, options.optimizer, group_, ranks_),
        step_(checkpoint.config(), options, weights_, ranks_) {
    initialize_adapter(weights_, options);
  }

  [[nodiscard]] int first_rank() const override { return static_cast<int>(group_.first_rank()); }
  [[nodiscard]] int local_ranks() const override { return static_cast<int>(group_.local_ranks); }
  [[nodiscard]] int world_size() const override { return static_cast<int>(group_.world_size()); }

  StepResult train_step(const std::vector<std::vector<TokenBatch>>& micro_batches, double learning_rate,
                        std::int64_t step) override {
    for (const std::vector<TokenBatch>& batches : micro_batches) check_batches(batches);
    StepResult result;
    std::tie(result.tokens, result.loss_tokens) = count(micro_batches);
    if (result.loss_tokens == 0) {
      fail_input(
          "a step's batch has no token to learn from: every label is masked; check the prompt's length against "
          "max_length");
    }
    optimizer_.zero_gradients();
    const double scale = 1.0 / static_cast<double>(result.loss_tokens);
    for (const std::vector<TokenBatch>& batches : micro_batches) {
      result.loss += sum_over_ranks(step_.forward_backward(batches, scale, step, optimizer_));
    }
    result.loss /= static_cast<double>(result.loss_tokens);
    result.grad_norm = optimizer_.gradient_norm();
    if (std::isfinite(result.loss) && std::isfinite(result.grad_norm)) {
      optimizer_.step(clip_factor(result.grad_norm, options_.max_grad_norm), learning_rate, step);
    }
    return result;
  }

  LossSum evaluate(const std::vector<TokenBatch>& batches) override {
    check_batches(batches);
    return {sum_over_ranks(step_.forward_loss(batches)), count({batches}).second};
  }

  std::unique_ptr<Decoder> make_decoder(std::int64_t rows, std::int64_t max_tokens) override {
    return reference::make_decoder(step_, config_, rows, max_tokens);
  }

  [[nodiscard]] NamedTensors adapter() override { return read_adapter(weights_, group_); }
  void load_adapter(const NamedTensors& tensors) override { write_adapter(weights_, group_, tensors); }
  [[nodiscard]] NamedTensors optimizer_state() override { return optimizer_.state(); }
  void load_optimizer_state(const NamedTensors& tensors) override { optimizer_.load_state(tensors); }

  [[nodiscard]] std::vector<std::int64_t> peak_bytes_by_rank() override {
    std::vector<std::int64_t> mine;
    for (const MemoryLedger& rank : ranks_) mine.push_back(rank.peak());
    std::vector<std::int64_t> all(group_.world_size());
    RankBuffers<const std::byte> parts;
    for (const std::int64_t& peak : mine) parts.push_back(std::as_bytes(std::span(&peak, 1)));
    all_gather(group_, parts, {std::as_writable_bytes(std::span(all))});
    return all;
  }

  [[nodiscard]] const ShardLayout& layout() const override { return layout_; }

 private:
  void check_batches(const std::vector<TokenBatch>& batches) const {
    if (batches.size() != ranks_.size()) {
      fail(ExitCode::rank_failed, "{} batches were given to {} ranks", batches.size(), ranks_.size());
    }
    for (const TokenBatch& batch : batches) check_tokens(batch, config_.vocab_size);
  }

  /// Tokens and unmasked tokens of the batches of all ranks.
  [[nodiscard]] std::pair<std::int64_t, std::int64_t> count(
      const std::vector<std::vector<TokenBatch>>& micro_batches) const {
    std::vector<std::array<std::int64_t, 2>> counts(ranks_.size());
    for (const std::vector<TokenBatch>& batches : micro_batches) {
      for (std::size_t rank = 0; rank < batches.size(); ++rank) {
        counts[rank][0] += batches[rank].tokens();
        counts[rank][1] += count_loss_tokens(batches[rank]);
      }
    }
    all_reduce(group_, RankBuffers<std::int64_t>(counts.begin(), counts.end()));
    return {counts[0][0], counts[0][1]};
  }

  [[nodiscard]] double sum_over_ranks(std::vector<double> values) const {
    RankBuffers<double> buffers;
    for (double& value : values) buffers.emplace_back(&value, 1);
    all_reduce(group_, buffers);
    return values.front();
  }

  EngineOptions options_;
  ModelConfig config_;
  ProcessGroup group_;
  std::vector<MemoryLedger> ranks_;
  ShardLayout layout_;
  ShardedWeights weights_;
  ShardedOptimizer optimizer_;
  ShardedStep step_;
};

}  // namespace

std::unique_ptr<TrainingEngine> make_sharded_engine(const HfCheckpoint& checkpoint, const EngineOptions& options,
                                                    RankLink* link) {
  return std::make_unique<ShardedEngine>(checkpoint, options, link);
}

}  // namespace qshard::reference
