#pragma once

#include "bench/gpu/clocks.h"

namespace qshard::bench {

/// What this GPU gives at best, measured in this process, units a second. Memory: medians; the product: the best of
/// short runs, since its rate falls with the power limit as a run gets longer.
struct Ceilings {
  double copy = 0;     // bytes read plus bytes written
  double read = 0;     // bytes
  double write = 0;    // bytes
  double product = 0;  // operations of an 8192 x 8192 x 8192 bf16 product on random data; 0: not measured
  ClockSample clocks;  // during the product

  [[nodiscard]] double memory() const;  // the largest of the three
};

/// Copy, read and write of 1 GiB buffers, each by the better of a simple kernel and CUDA's own call; about a second,
/// and 2 GiB of memory.
Ceilings measure_ceilings(const Clocks& clocks, bool with_product);

}  // namespace qshard::bench
