#pragma once

#include <cstdint>
#include <vector>

#include "core/model/model_config.h"

namespace qshard::bench {

/// Seconds that the products with the model's frozen 4-bit weights take in a step of one micro-batch of `tokens`, with
/// nothing else on the GPU and every weight there: y = x W^T of each linear layer, the same once more for all but the
/// down projection, which recomputation leaves out, and dx = dy W. One layer of random weights (NF4, nested blocks of
/// 64) is multiplied by as often as the model has layers, by the kernels that a step chooses, without adapters. A value
/// for each of `steps` steps, one after the other without a pause, so that the clock falls as it does in a run.
std::vector<double> time_frozen_products(const ModelConfig& config, std::int64_t tokens, int steps);

}  // namespace qshard::bench
