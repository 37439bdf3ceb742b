#include "core/sharding/step_memory.h"

#include <algorithm>
#include <map>

namespace qshard {

namespace {

constexpr std::int64_t kHead = -1;

/// When the last segment ends that reads what `gather` brought: before the same is gathered again.
double last_read(const Timeline& timeline, const Segment& gather) {
  double again = timeline.end;
  for (const Segment& other : timeline.segments) {
    const bool is_later = other.what == "gather" && other.layer == gather.layer && other.begin > gather.begin;
    if (is_later) again = std::min(again, other.begin);
  }
  double last = gather.end;
  for (const Segment& reader : timeline.segments) {
    if (reader.lane != Lane::compute || reader.layer != gather.layer || reader.begin >= again) continue;
    last = std::max(last, reader.end);
  }
  return last;
}

double unit_bytes(const StepWork& work, std::int64_t layer) {
  if (layer != kHead) return work.stages.at(static_cast<std::size_t>(layer) + 1).bytes;
  return work.stages.back().bytes + (work.model.tie_word_embeddings ? work.stages.front().bytes : 0);
}

}  // namespace

std::vector<MemoryMoment> memory_over_step(const StepWork& work, const Timeline& timeline) {
  std::map<double, MemoryMoment> changes;
  for (const Segment& segment : timeline.segments) {
    if (segment.what != "gather") continue;
    const double bytes = unit_bytes(work, segment.layer);
    changes[segment.begin].gathered += bytes;
    changes[last_read(timeline, segment)].gathered -= bytes;
  }
  const double input = 2.0 * static_cast<double>(work.batch.tokens * work.model.hidden_size);
  for (const Segment& segment : timeline.segments) {
    if (work.choice.inputs_on_host || segment.layer == kHead) continue;
    if (segment.what == "forward") changes[segment.begin].inputs += input;
    if (segment.what == "backward") changes[segment.end].inputs -= input;
  }
  std::vector<MemoryMoment> moments;
  MemoryMoment now;
  for (const auto& [at, change] : changes) {
    now = {at, now.gathered + change.gathered, now.inputs + change.inputs};
    moments.push_back(now);
  }
  return moments;
}

}  // namespace qshard
