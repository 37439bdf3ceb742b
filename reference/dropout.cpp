#include "reference/dropout.h"

#include <algorithm>
#include <array>

#include "core/base/error.h"
#include "core/tensor/philox.h"
#include "reference/parallel.h"

namespace qshard::reference {
namespace {

void check(const DropoutPlace& place, double probability, std::int64_t features) {
  if (!(probability >= 0 && probability < 1)) {
    fail_input("lora_dropout is {}; give a probability of at least 0 and below 1", probability);
  }
  if (place.layer >= 4096 || place.projection >= 16 || features > (1 << 18)) {
    fail_input(
        "layer {}, projection {} with {} input features has no place in the counter of the dropout mask, which "
        "has room for 4096 layers, 16 projections and 262144 features",
        place.layer, place.projection, features);
  }
}

}  // namespace

template <typename T>
void dropout(const DropoutPlace& place, double probability, const TokenBatch& batch, DType compute, Matrix<T>& values) {
  check(place, probability, values.cols());
  if (probability == 0) return;
  const auto threshold = static_cast<std::uint32_t>(probability * 0x1p32);
  const auto scale = static_cast<T>(1 / (1 - probability));
  const std::array<std::uint32_t, 2> key{static_cast<std::uint32_t>(place.seed),
                                         static_cast<std::uint32_t>(place.seed >> 32)};
  const std::uint32_t base = place.layer << 16 | place.projection << 28;
  parallel_for(batch.rows(), 1, [&](std::int64_t begin, std::int64_t) {
    const auto row = static_cast<std::size_t>(begin);
    const auto row_id = static_cast<std::uint32_t>(batch.row_ids[row]);
    for (std::int64_t token = batch.offsets[row]; token < batch.offsets[row + 1]; ++token) {
      const auto position = static_cast<std::uint32_t>(token - batch.offsets[row]);
      for (std::int64_t first = 0; first < values.cols(); first += 4) {
        const auto words = philox4x32(
            {position, base | static_cast<std::uint32_t>(first / 4), row_id, static_cast<std::uint32_t>(place.step)},
            key);
        const std::int64_t count = std::min<std::int64_t>(4, values.cols() - first);
        for (std::int64_t i = 0; i < count; ++i) {
          T& value = values(token, first + i);
          value = words[static_cast<std::size_t>(i)] >= threshold ? value * scale : T(0);
        }
      }
      auto done = values.row(token);
      round_to(compute, done);
    }
  });
}

template void dropout(const DropoutPlace&, double, const TokenBatch&, DType, Matrix<float>&);
template void dropout(const DropoutPlace&, double, const TokenBatch&, DType, Matrix<double>&);

}  // namespace qshard::reference
