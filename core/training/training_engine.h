#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor/tensor.h"
#include "core/training/token_batch.h"

namespace qshard {

struct StepResult {
  double loss = 0;          // mean over all unmasked tokens of the global batch
  double grad_norm = 0;     // global L2 norm of the gradients before clipping
  std::int64_t tokens = 0;  // input tokens of the global batch
  std::int64_t loss_tokens = 0;
};

struct LossSum {
  double sum = 0;  // of -log p over the unmasked tokens
  std::int64_t loss_tokens = 0;
};

/// What runs the training arithmetic: the CPU reference, or the GPUs. It owns the frozen shards, the adapter and the
/// optimizer state of all ranks it runs; files, schedules and logs are its caller's.
class TrainingEngine {
 public:
  virtual ~TrainingEngine() = default;

  /// One optimizer step. micro_batches[a][rank] is what `rank` computes in accumulation step a (it may be empty).
  /// The loss and its gradients are means over the unmasked tokens of all of them. `step` (from 1) keys dropout and
  /// AdamW's bias correction. Throws Error(bad_input) for a token id outside the vocabulary or a batch without an
  /// unmasked token. When the loss or the gradient norm is not finite nothing is updated; the caller decides.
  virtual StepResult train_step(const std::vector<std::vector<TokenBatch>>& micro_batches, double learning_rate,
                                std::int64_t step) = 0;

  /// Summed loss of a batch without dropout.
  virtual LossSum evaluate(const TokenBatch& batch) = 0;

  /// Logits (float, vocab_size of them) of the token after `input_ids`, without dropout.
  virtual std::vector<float> next_token_logits(const std::vector<std::int32_t>& input_ids) = 0;

  /// The adapter under PEFT's tensor names (base_model.model.<module>.lora_A.weight [r, in], .lora_B.weight [out, r]),
  /// and the optimizer's state under "<tensor name>.exp_avg" and ".exp_avg_sq". Loading takes what the other gave, in
  /// any floating dtype, and throws Error(bad_input) for a missing, unknown or misshapen tensor. Saved with one world
  /// size, loadable with any other, to the bit.
  [[nodiscard]] virtual NamedTensors adapter() const = 0;
  virtual void load_adapter(const NamedTensors& tensors) = 0;
  [[nodiscard]] virtual NamedTensors optimizer_state() const = 0;
  virtual void load_optimizer_state(const NamedTensors& tensors) = 0;

  /// Peak bytes each rank has held at once so far: shards, gathered units, activations, gradients, optimizer state.
  [[nodiscard]] virtual std::vector<std::int64_t> peak_bytes_by_rank() const = 0;

  /// Text for the start of a run: units, what each rank holds, messages, and notes about the layout.
  [[nodiscard]] virtual std::string describe_layout() const = 0;
};

}  // namespace qshard
