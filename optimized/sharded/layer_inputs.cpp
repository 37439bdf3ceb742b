#include "optimized/sharded/layer_inputs.h"

#include <utility>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

LayerInputs::LayerInputs(std::int64_t layers, std::int64_t bytes, bool on_host, const StepResources& resources)
    : resources_(&resources), bytes_(bytes), on_host_(on_host) {
  if (!on_host || resources.dry_run()) return;
  host_.emplace(layers * bytes);
  copy_.emplace();
}

std::byte* LayerInputs::host_place(std::size_t layer) const {
  return host_->data() + static_cast<std::int64_t>(layer) * bytes_;
}

void LayerInputs::push(Arena::Piece input, std::int64_t bytes) {
  if (on_host_ && bytes > bytes_) fail_input("a batch is larger than what host memory was planned for");
  // The one before has long been copied when the stream of the arithmetic comes to this place.
  if (on_host_ && !inputs_.empty()) {
    inputs_.back().copied.hold_back(resources_->stream);
    inputs_.back().memory = {};
  }
  Input& pushed = inputs_.emplace_back();
  pushed.memory = std::move(input);
  pushed.bytes = bytes;
  if (!copy_) return;
  pushed.copied.record(resources_->stream);
  pushed.copied.hold_back(copy_->get());
  QSHARD_CUDA_CHECK(cudaMemcpyAsync(host_place(inputs_.size() - 1), pushed.memory.as(), static_cast<std::size_t>(bytes),
                                    cudaMemcpyDeviceToHost, copy_->get()));
  pushed.copied.record(copy_->get());
}

// The memory may just have been something else's: the copy waits for what was enqueued before.
void LayerInputs::bring_back(std::size_t layer) {
  Input& input = inputs_[layer];
  input.memory = resources_->arena->take(input.bytes, "layer inputs");
  if (!copy_) return;
  input.copied.record(resources_->stream);
  input.copied.hold_back(copy_->get());
  QSHARD_CUDA_CHECK(cudaMemcpyAsync(input.memory.as(), host_place(layer), static_cast<std::size_t>(input.bytes),
                                    cudaMemcpyHostToDevice, copy_->get()));
  input.copied.record(copy_->get());
}

Arena::Piece LayerInputs::pop() {
  if (copy_) inputs_.back().copied.hold_back(resources_->stream);
  Arena::Piece memory = std::move(inputs_.back().memory);
  inputs_.pop_back();
  if (on_host_ && !inputs_.empty()) bring_back(inputs_.size() - 1);
  return memory;
}

}  // namespace qshard::optimized
