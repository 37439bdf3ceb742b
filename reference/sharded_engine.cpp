#include "reference/sharded_engine.h"

#include <cmath>
#include <utility>

#include "core/base/error.h"
#include "core/formats/bnb_checkpoint.h"
#include "reference/adamw.h"
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
      options.world_size, options.sharding);
}

class ShardedEngine : public TrainingEngine {
 public:
  ShardedEngine(const HfCheckpoint& checkpoint, const EngineOptions& options)
      : options_(options),
        vocab_size_(checkpoint.config().vocab_size),
        ranks_(static_cast<std::size_t>(options.world_size)),
        layout_(make_layout(checkpoint, options)),
        weights_(layout_, checkpoint, options.quantization, ranks_),
        optimizer_(weights_, options.sharding, options.optimizer, ranks_),
        step_(checkpoint.config(), options, weights_, ranks_) {
    initialize_adapter(weights_, options.seed);
  }

  StepResult train_step(const std::vector<std::vector<TokenBatch>>& micro_batches, double learning_rate,
                        std::int64_t step) override {
    StepResult result = count(micro_batches);
    optimizer_.zero_gradients();
    const double scale = 1.0 / static_cast<double>(result.loss_tokens);
    for (const std::vector<TokenBatch>& batches : micro_batches) {
      result.loss += step_.forward_backward(batches, scale, step, optimizer_);
    }
    result.loss /= static_cast<double>(result.loss_tokens);
    result.grad_norm = optimizer_.gradient_norm();
    if (std::isfinite(result.loss) && std::isfinite(result.grad_norm)) {
      optimizer_.step(clip_factor(result.grad_norm, options_.max_grad_norm), learning_rate, step);
    }
    return result;
  }

  LossSum evaluate(const TokenBatch& batch) override {
    check_tokens(batch, vocab_size_);
    return {step_.forward_loss({batch}), count_loss_tokens(batch)};
  }

  std::vector<float> next_token_logits(const std::vector<std::int32_t>& input_ids) override {
    TokenBatch batch;
    batch.input_ids = input_ids;
    batch.labels.assign(input_ids.size(), kIgnoredLabel);
    batch.offsets = {0, static_cast<std::int64_t>(input_ids.size())};
    batch.row_ids = {0};
    if (input_ids.empty()) fail_input("there is no token to continue; give a prompt");
    check_tokens(batch, vocab_size_);
    const Matrix<float> logits = step_.forward_logits(batch);
    return {logits.data(), logits.data() + logits.size()};
  }

  [[nodiscard]] NamedTensors adapter() const override { return read_adapter(weights_); }
  void load_adapter(const NamedTensors& tensors) override { write_adapter(weights_, tensors); }
  [[nodiscard]] NamedTensors optimizer_state() const override { return optimizer_.state(); }
  void load_optimizer_state(const NamedTensors& tensors) override { optimizer_.load_state(tensors); }

  [[nodiscard]] std::vector<std::int64_t> peak_bytes_by_rank() const override {
    std::vector<std::int64_t> peaks;
    for (const MemoryLedger& rank : ranks_) peaks.push_back(rank.peak());
    return peaks;
  }

  [[nodiscard]] std::string describe_layout() const override { return describe(layout_); }

 private:
  [[nodiscard]] StepResult count(const std::vector<std::vector<TokenBatch>>& micro_batches) const {
    StepResult result;
    for (const std::vector<TokenBatch>& batches : micro_batches) {
      if (batches.size() != ranks_.size()) {
        fail(ExitCode::rank_failed, "{} batches were given to {} ranks", batches.size(), ranks_.size());
      }
      for (const TokenBatch& batch : batches) {
        check_tokens(batch, vocab_size_);
        result.tokens += batch.tokens();
        result.loss_tokens += count_loss_tokens(batch);
      }
    }
    check_loss_tokens(result.loss_tokens);
    return result;
  }

  EngineOptions options_;
  std::int64_t vocab_size_;
  std::vector<MemoryLedger> ranks_;
  ShardLayout layout_;
  ShardedWeights weights_;
  ShardedOptimizer optimizer_;
  ShardedStep step_;
};

}  // namespace

std::unique_ptr<TrainingEngine> make_sharded_engine(const HfCheckpoint& checkpoint, const EngineOptions& options) {
  return std::make_unique<ShardedEngine>(checkpoint, options);
}

}  // namespace qshard::reference
