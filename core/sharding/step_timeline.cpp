#include "core/sharding/step_timeline.h"

#include <algorithm>
#include <array>
#include <utility>

namespace qshard {

namespace {

constexpr std::int64_t kHead = -1;
constexpr std::int64_t kNothing = -2;

class StepPlayer {
 public:
  explicit StepPlayer(const MicroBatchTimes& times)
      : times_(times),
        layers_(static_cast<std::int64_t>(times.forward.size())),
        buffers_(times.gather.empty() ? 0 : std::min(times.buffers, times.forward.size())) {}

  Timeline play(std::int64_t micro_batches) {
    for (std::int64_t micro_batch = 0; micro_batch < micro_batches; ++micro_batch) {
      recording_ = micro_batch == 0;
      forward();
      head();
      backward();
    }
    const double last_sum = std::max(summed_[0], summed_[1]);
    timeline_.waited_for_sums += std::max(0.0, last_sum - compute_);
    timeline_.end = std::max(compute_, last_sum);
    return std::move(timeline_);
  }

 private:
  struct Buffer {
    std::int64_t layer = kNothing;
    double ready = 0;
    double freed = 0;
    std::int64_t used_at = 0;
    bool in_use = false;
  };

  void record(Lane lane, std::string_view what, std::int64_t layer, double begin, double end) {
    if (recording_ && end > begin) timeline_.segments.push_back({lane, what, layer, begin, end});
  }

  /// Arithmetic goes on at `time` at the earliest; `waited` counts for how long it stood still.
  void wait_until(double time, double& waited) {
    waited += std::max(0.0, time - compute_);
    compute_ = std::max(compute_, time);
  }

  void compute(std::string_view what, std::int64_t layer, double seconds) {
    const double beside = std::clamp(link_ - compute_, 0.0, seconds * times_.slowdown);
    seconds += beside - beside / times_.slowdown;
    record(Lane::compute, what, layer, compute_, compute_ + seconds);
    compute_ += seconds;
  }

  /// Returns when the bytes are there that may move from `earliest` on.
  double move(Lane lane, std::string_view what, std::int64_t layer, double earliest, double seconds) {
    double& busy = lane == Lane::host && !times_.one_link ? host_ : link_;
    const double begin = std::max(busy, earliest);
    busy = begin + seconds;
    record(lane, what, layer, begin, busy);
    return busy;
  }

  double gather(std::int64_t layer, double earliest, double seconds) {
    timeline_.gathering += seconds;
    return move(Lane::link, "gather", layer, earliest, seconds);
  }

  Buffer* holder_of(std::int64_t layer) {
    const auto found = std::ranges::find(buffers_, layer, &Buffer::layer);
    return found == buffers_.end() ? nullptr : &*found;
  }

  void prefetch(std::int64_t layer) {
    if (buffers_.empty() || holder_of(layer) != nullptr) return;
    Buffer* oldest = nullptr;
    for (Buffer& buffer : buffers_) {
      if (!buffer.in_use && (oldest == nullptr || buffer.used_at < oldest->used_at)) oldest = &buffer;
    }
    if (oldest == nullptr) return;
    oldest->layer = layer;
    oldest->used_at = ++clock_;
    oldest->ready = gather(layer, oldest->freed, times_.gather[static_cast<std::size_t>(layer)]);
  }

  void acquire(std::int64_t layer) {
    if (buffers_.empty()) return;
    prefetch(layer);
    Buffer& buffer = *holder_of(layer);
    buffer.in_use = true;
    buffer.used_at = ++clock_;
    wait_until(buffer.ready, timeline_.waited_for_gathers);
  }

  void release(std::int64_t layer) {
    if (buffers_.empty()) return;
    Buffer& buffer = *holder_of(layer);
    buffer.in_use = false;
    buffer.freed = compute_;
  }

  void forward() {
    double left = 0;  // when the input before has left for the host
    if (times_.embedding_gather > 0) {
      wait_until(gather(kHead, compute_, times_.embedding_gather), timeline_.waited_for_gathers);
    }
    for (std::int64_t layer = 0; layer < layers_; ++layer) {
      acquire(layer);
      const bool last = layer + 1 == layers_;
      if (!last) prefetch(layer + 1);
      if (last && times_.early_head) head_ready_ = gather(kHead, compute_, times_.head_gather);
      compute("forward", layer, times_.forward[static_cast<std::size_t>(layer)]);
      release(layer);
      if (times_.input_copy == 0) continue;
      wait_until(left, timeline_.waited_for_inputs);
      // To the host: the other direction of the link, which only inputs take.
      const double begin = std::max(left, compute_);
      left = begin + times_.input_copy;
      record(Lane::host, "input copy", layer, begin, left);
    }
  }

  void head() {
    if (!times_.early_head) head_ready_ = gather(kHead, compute_, times_.head_gather);
    wait_until(head_ready_, timeline_.waited_for_gathers);
    compute("head", kHead, times_.head);
  }

  void backward() {
    double back = 0;  // when this layer's input is back from the host; that of the last layer has not left
    for (std::int64_t layer = layers_ - 1; layer >= 0; --layer) {
      wait_until(back, timeline_.waited_for_inputs);
      if (times_.input_copy > 0 && layer > 0) back = move(Lane::host, "input copy", layer, compute_, times_.input_copy);
      acquire(layer);
      if (layer > 0) prefetch(layer - 1);
      double& summed = summed_[static_cast<std::size_t>(layer % 2)];
      wait_until(summed, timeline_.waited_for_sums);
      compute("backward", layer, times_.backward[static_cast<std::size_t>(layer)]);
      release(layer);
      if (times_.gradient_sum > 0) summed = move(Lane::link, "gradient sum", layer, compute_, times_.gradient_sum);
    }
  }

  const MicroBatchTimes& times_;
  std::int64_t layers_;
  std::vector<Buffer> buffers_;
  Timeline timeline_;
  bool recording_ = true;
  // Until when each is busy.
  double compute_ = 0;
  double link_ = 0;
  double host_ = 0;
  double head_ready_ = 0;
  std::array<double, 2> summed_{};
  std::int64_t clock_ = 0;
};

}  // namespace

std::string_view to_string(Lane lane) {
  switch (lane) {
    case Lane::compute:
      return "compute";
    case Lane::link:
      return "link";
    case Lane::host:
      break;
  }
  return "host";
}

Timeline play_step(const MicroBatchTimes& times, std::int64_t micro_batches) {
  return StepPlayer(times).play(micro_batches);
}

}  // namespace qshard
