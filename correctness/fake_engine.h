#pragma once

#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>

#include "core/training/training_engine.h"

namespace qshard {

/// A TrainingEngine small enough to check by eye: one adapter tensor of four floats, pulled towards a number that is a
/// hash of the step's rows, with momentum. Every bit of its state depends on the rows, their order, the ranks, the
/// learning rate and the step, so that a run that loses any of them shows.
class FakeEngine : public TrainingEngine {
 public:
  std::int64_t nan_step = -1;           // train_step returns a NaN loss there
  std::int64_t signal_step = -1;        // SIGTERM comes while train_step is there
  std::int64_t signal_evaluation = -1;  // SIGTERM comes while evaluate is called for this time, counted from 1

  StepResult train_step(const std::vector<std::vector<TokenBatch>>& micro_batches, double learning_rate,
                        std::int64_t step) override {
    if (step == signal_step) std::raise(SIGTERM);
    StepResult result;
    std::uint64_t hash = static_cast<std::uint64_t>(step);
    for (const auto& ranks : micro_batches) {
      for (const TokenBatch& batch : ranks) {
        for (const std::int32_t id : batch.input_ids) hash = hash * 31 + static_cast<std::uint64_t>(id);
        for (const std::uint64_t id : batch.row_ids) hash = hash * 37 + id;
        hash = hash * 41 + 1;
        result.tokens += batch.tokens();
        result.loss_tokens += count_loss_tokens(batch);
      }
    }
    const auto target = static_cast<float>(hash % 1000) / 1000.0F;
    result.loss = step == nan_step ? std::numeric_limits<double>::quiet_NaN() : loss();
    if (step == nan_step) return result;
    auto values = adapter_.as<float>();
    auto momentum = momentum_.as<float>();
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float gradient = values[i] - target * static_cast<float>(i + 1);
      momentum[i] = 0.9F * momentum[i] + 0.1F * gradient;
      values[i] -= static_cast<float>(learning_rate) * momentum[i];
      result.grad_norm += static_cast<double>(gradient) * gradient;
    }
    result.grad_norm = std::sqrt(result.grad_norm);
    return result;
  }

  LossSum evaluate(const std::vector<TokenBatch>& batches) override {
    if (++evaluations_ == signal_evaluation) std::raise(SIGTERM);
    std::int64_t tokens = 0;
    for (const TokenBatch& batch : batches) tokens += count_loss_tokens(batch);
    return {loss() * static_cast<double>(tokens), tokens};
  }

  std::unique_ptr<Decoder> make_decoder(std::int64_t, std::int64_t) override { return nullptr; }

  [[nodiscard]] int first_rank() const override { return 0; }
  [[nodiscard]] int local_ranks() const override { return 1; }
  [[nodiscard]] int world_size() const override { return 1; }

  [[nodiscard]] NamedTensors adapter() override { return {{"values", adapter_}}; }
  void load_adapter(const NamedTensors& tensors) override { adapter_ = tensors.at("values"); }
  [[nodiscard]] NamedTensors optimizer_state() override { return {{"values.exp_avg", momentum_}}; }
  void load_optimizer_state(const NamedTensors& tensors) override { momentum_ = tensors.at("values.exp_avg"); }
  [[nodiscard]] std::vector<std::int64_t> peak_bytes_by_rank() override { return {32}; }
  [[nodiscard]] const ShardLayout& layout() const override { return layout_; }

 private:
  [[nodiscard]] double loss() const {
    double sum = 1;
    for (const float value : adapter_.as<float>()) sum += static_cast<double>(value) * value;
    return sum;
  }

  std::int64_t evaluations_ = 0;
  ShardLayout layout_;
  Tensor adapter_{DType::f32, {4}};
  Tensor momentum_{DType::f32, {4}};
};

}  // namespace qshard
