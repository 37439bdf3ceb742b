#include "core/training/token_batch.h"

namespace qshard {

std::int64_t count_loss_tokens(const TokenBatch& batch) {
  std::int64_t count = 0;
  for (std::int64_t row = 0; row < batch.rows(); ++row) {
    for (std::int64_t t = batch.offsets[row] + 1; t < batch.offsets[row + 1]; ++t) {
      if (batch.labels[static_cast<std::size_t>(t)] != kIgnoredLabel) ++count;
    }
  }
  return count;
}

}  // namespace qshard
