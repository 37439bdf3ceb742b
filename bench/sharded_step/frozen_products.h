#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <cuda_runtime_api.h>

#include "core/model/model_config.h"

namespace qshard::bench {

/// The products of a step with the frozen 4-bit weights of one decoder layer, by the kernels that a step
/// with adapters chooses, without the adapters, on random weights (NF4, nested blocks of 64) and random activations of
/// the current device.
class FrozenProducts {
 public:
  /// tokens: of a micro-batch.
  FrozenProducts(const ModelConfig& config, std::int64_t tokens);
  ~FrozenProducts();
  FrozenProducts(const FrozenProducts&) = delete;
  FrozenProducts& operator=(const FrozenProducts&) = delete;

  /// y = x W^T of each linear layer.
  void forward(cudaStream_t stream) const;
  /// The same for all but the down projection, whose output the backward pass does not read.
  void recomputation(cudaStream_t stream) const;
  /// dx = dy W of each linear layer.
  void backward(cudaStream_t stream) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// Seconds that these products take in a step of one micro-batch of `tokens` that recomputes, with nothing else on the
/// GPU: one layer's as often as the model has layers. A value for each of `steps` steps, one after the other without a
/// pause, so that the clock falls as it does in a run.
std::vector<double> time_frozen_products(const ModelConfig& config, std::int64_t tokens, int steps);

}  // namespace qshard::bench
