#pragma once

#include <algorithm>
#include <cstdint>

namespace qshard::reference {

/// Calls body(begin, end) for consecutive pieces of at most `grain` items covering [0, count), on all cores where
/// OpenMP was found. The pieces depend on `grain` alone, so a body that only writes its own items gives the same bits
/// on any number of threads. `body` must not throw. A single piece is no parallel region: for a loop within a region
/// OpenMP starts new threads, even where the region has one thread, and the loop of a body may be the one worth
/// sharing.
template <typename Body>
void parallel_for(std::int64_t count, std::int64_t grain, const Body& body) {
  const std::int64_t pieces = (count + grain - 1) / grain;
  if (pieces == 1) return body(std::int64_t{0}, count);
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    body(piece * grain, std::min(count, (piece + 1) * grain));
  }
}

}  // namespace qshard::reference
