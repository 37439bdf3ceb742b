#include "optimized/sharded/rope_tables.h"

#include <vector>

#include "core/base/error.h"
#include "core/model/rope_table.h"
#include "core/tensor/tensor.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

void copy_rounded(const std::vector<float>& values, DType dtype, const Arena::Piece& to, cudaStream_t stream) {
  const Shape shape{static_cast<std::int64_t>(values.size())};
  const std::vector<float> rounded = to_floats(from_floats(values, dtype, shape).view());
  QSHARD_CUDA_CHECK(
      cudaMemcpyAsync(to.as(), rounded.data(), rounded.size() * sizeof(float), cudaMemcpyHostToDevice, stream));
  QSHARD_CUDA_CHECK(cudaStreamSynchronize(stream));
}

}  // namespace

RopeTables::RopeTables(const ModelConfig& config, DType dtype, std::int64_t positions, Arena& arena)
    : config_(&config),
      dtype_(dtype),
      positions_(positions),
      cos_(arena.take(positions * config.head_dim / 2 * 4, "rotary tables")),
      sin_(arena.take(positions * config.head_dim / 2 * 4, "rotary tables")) {}

void RopeTables::cover(std::int64_t longest, cudaStream_t stream) {
  if (longest > positions_) {
    fail_input("a row of {} tokens is longer than the {} that memory was planned for", longest, positions_);
  }
  const bool by_length = config_->rope.type == RopeType::dynamic;
  if (by_length ? covered_ == longest : covered_ != 0) return;
  covered_ = by_length ? longest : positions_;
  const RopeAngles angles = make_rope_angles(*config_, covered_);
  copy_rounded(angles.cos, dtype_, cos_, stream);
  copy_rounded(angles.sin, dtype_, sin_, stream);
}

}  // namespace qshard::optimized
