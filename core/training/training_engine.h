#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/sharding/shard_layout.h"
#include "core/tensor/tensor.h"
#include "core/training/decoder.h"
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
/// optimizer state of the ranks that this process holds: first_rank() up to first_rank() + local_ranks(), of
/// world_size(). Files, schedules and logs are its caller's.
///
/// Every function that is not const is collective: all processes of the job call it, in the same order. Results are the
/// same on all of them, except where it says that rank 0 gets them (the process that holds rank 0).
class TrainingEngine {
 public:
  virtual ~TrainingEngine() = default;

  [[nodiscard]] virtual int first_rank() const = 0;
  [[nodiscard]] virtual int local_ranks() const = 0;
  [[nodiscard]] virtual int world_size() const = 0;

  /// One optimizer step. micro_batches[a][i] is what rank first_rank() + i computes in accumulation step a (it may be
  /// empty). The loss and its gradients are means over the unmasked tokens of all batches of all ranks. `step` (from 1)
  /// keys dropout and AdamW's bias correction. Throws Error(bad_input) for a token id outside the vocabulary or a
  /// global batch without an unmasked token. When the loss or the gradient norm is not finite nothing is updated; the
  /// caller decides.
  virtual StepResult train_step(const std::vector<std::vector<TokenBatch>>& micro_batches, double learning_rate,
                                std::int64_t step) = 0;

  /// Loss without dropout, summed over the batches of all ranks; batches[i] (it may be empty) is that of rank
  /// first_rank() + i.
  virtual LossSum evaluate(const std::vector<TokenBatch>& batches) = 0;

  /// For at most `rows` rows of at most `max_tokens` tokens each, prompt included.
  virtual std::unique_ptr<Decoder> make_decoder(std::int64_t rows, std::int64_t max_tokens) = 0;

  /// The adapter under PEFT's tensor names (base_model.model.<module>.lora_A.weight [r, in], .lora_B.weight [out, r]),
  /// and the optimizer's state under "<tensor name>.exp_avg" and ".exp_avg_sq" in the dtype it is kept in; 8-bit codes
  /// with their ".exp_avg.absmax" and ".exp_avg_sq.absmax" [ceil(elements / 256)]. Rank 0 gets the tensors, the others
  /// none. Loading takes what the other gave, from rank 0 (what the others give is not looked at): the adapter in any
  /// floating dtype, moments of this run's kind only. Rank 0 throws Error(bad_input) for a missing, unknown or
  /// misshapen tensor, and, naming both, for another kind of moments. Saved with one world size, loadable with any
  /// other, to the bit.
  [[nodiscard]] virtual NamedTensors adapter() = 0;
  virtual void load_adapter(const NamedTensors& tensors) = 0;
  [[nodiscard]] virtual NamedTensors optimizer_state() = 0;
  virtual void load_optimizer_state(const NamedTensors& tensors) = 0;

  /// Peak bytes each rank of the job has held at once so far: shards, gathered units, activations, gradients, optimizer
  /// state.
  [[nodiscard]] virtual std::vector<std::int64_t> peak_bytes_by_rank() = 0;

  /// Units, shards and their places.
  [[nodiscard]] virtual const ShardLayout& layout() const = 0;
};

}  // namespace qshard
