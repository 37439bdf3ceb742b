#include "optimized/sharded/device_batch.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

// The arrays of a batch one after the other, in the host's staging memory and on the device alike.
struct Arrays {
  std::int32_t* input_ids;
  std::int32_t* targets;
  std::int32_t* positions;
  std::int32_t* row_of;
  std::int32_t* offsets;
  std::uint32_t* row_ids;
  float* scale;

  Arrays(std::byte* memory, std::int64_t tokens, std::int64_t rows) {
    auto* words = reinterpret_cast<std::int32_t*>(memory);
    input_ids = words;
    targets = input_ids + tokens;
    positions = targets + tokens;
    row_of = positions + tokens;
    offsets = row_of + tokens;
    row_ids = reinterpret_cast<std::uint32_t*>(offsets + rows + 1);
    scale = reinterpret_cast<float*>(row_ids + rows);
  }

  static std::int64_t bytes(std::int64_t tokens, std::int64_t rows) { return 4 * (4 * tokens + 2 * rows + 2); }
};

void fill(const TokenBatch& batch, float gradient_scale, const Arrays& arrays) {
  std::copy(batch.input_ids.begin(), batch.input_ids.end(), arrays.input_ids);
  for (std::int64_t row = 0; row < batch.rows(); ++row) {
    const std::int64_t begin = batch.offsets[static_cast<std::size_t>(row)];
    const std::int64_t end = batch.offsets[static_cast<std::size_t>(row) + 1];
    for (std::int64_t token = begin; token < end; ++token) {
      arrays.targets[token] = token + 1 < end ? batch.labels[static_cast<std::size_t>(token) + 1] : kIgnoredLabel;
      arrays.positions[token] = static_cast<std::int32_t>(token - begin);
      arrays.row_of[token] = static_cast<std::int32_t>(row);
    }
    arrays.offsets[row + 1] = static_cast<std::int32_t>(end);
    arrays.row_ids[row] = static_cast<std::uint32_t>(batch.row_ids[static_cast<std::size_t>(row)]);
  }
  arrays.offsets[0] = 0;
  *arrays.scale = gradient_scale;
}

}  // namespace

DeviceBatch::DeviceBatch(const BatchBound& bound, Arena& arena)
    : bound_(bound), memory_(arena.take(Arrays::bytes(bound.tokens, bound.rows), "token rows")) {
  if (arena.dry_run()) return;
  for (Staging& staging : staging_) {
    void* memory = nullptr;
    QSHARD_CUDA_CHECK(cudaMallocHost(&memory, static_cast<std::size_t>(Arrays::bytes(bound.tokens, bound.rows))));
    staging.memory = static_cast<std::byte*>(memory);
    QSHARD_CUDA_CHECK(cudaEventCreateWithFlags(&staging.copied, cudaEventDisableTiming));
  }
}

DeviceBatch::~DeviceBatch() {
  for (const Staging& staging : staging_) {
    if (staging.copied != nullptr) cudaEventDestroy(staging.copied);
    if (staging.memory != nullptr) cudaFreeHost(staging.memory);
  }
}

void DeviceBatch::upload(const TokenBatch& batch, float gradient_scale, cudaStream_t stream) {
  if (batch.tokens() > bound_.tokens || batch.rows() > bound_.rows) {
    fail_input("a batch of {} tokens in {} rows is larger than the {} tokens in {} rows that memory was planned for",
               batch.tokens(), batch.rows(), bound_.tokens, bound_.rows);
  }
  auto* memory = memory_.as<std::byte>();
  const Arrays on_device(memory, batch.tokens(), batch.rows());
  rows_ = {on_device.input_ids,
           on_device.targets,
           on_device.positions,
           on_device.offsets,
           on_device.row_ids,
           static_cast<std::int32_t>(batch.tokens()),
           static_cast<std::int32_t>(batch.rows()),
           static_cast<std::int32_t>(longest_row(batch)),
           on_device.row_of};
  scale_ = on_device.scale;
  const Staging& staging = staging_[next_];
  next_ = 1 - next_;
  if (staging.memory == nullptr) return;
  QSHARD_CUDA_CHECK(cudaEventSynchronize(staging.copied));
  fill(batch, gradient_scale, Arrays(staging.memory, batch.tokens(), batch.rows()));
  QSHARD_CUDA_CHECK(cudaMemcpyAsync(memory, staging.memory, Arrays::bytes(batch.tokens(), batch.rows()),
                                    cudaMemcpyHostToDevice, stream));
  QSHARD_CUDA_CHECK(cudaEventRecord(staging.copied, stream));
}

}  // namespace qshard::optimized
