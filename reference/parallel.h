#pragma once

#include <algorithm>
#include <cstdint>

namespace qshard::reference {

/// Calls body(begin, end) for consecutive pieces of at most `grain` items covering [0, count), on all cores where
/// OpenMP was found. The pieces depend on `grain` alone, so a body that only writes its own items gives the same bits
/// on any number of threads. `body` must not throw.
template <typename Body>
void parallel_for(std::int64_t count, std::int64_t grain, const Body& body) {
  const std::int64_t pieces = (count + grain - 1) / grain;
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    body(piece * grain, std::min(count, (piece + 1) * grain));
  }
}

}  // namespace qshard::reference
