#pragma once

#include <vector>

#include "bench/shard_layout/gathered_layout.h"
#include "bench/sharded_step/frozen_products.h"
#include "core/launch/rank_link.h"

namespace qshard::bench {

/// Seconds of one pass of gathers of a layout, and of the products that pass beside it in a forward pass; a value a
/// repetition, each from the GPU's own events.
struct GatherTimes {
  std::vector<double> alone;
  std::vector<double> beside;           // the gathers while products run
  std::vector<double> products_alone;   // a forward pass of the frozen products of as many layers
  std::vector<double> products_beside;  // the same while gathers run
};

/// Collective: the ranks begin each repetition together. layers: of the layout.
GatherTimes time_gathers(GatheredLayout& layout, const FrozenProducts& products, std::int64_t layers, int repetitions,
                         RankLink& link);

}  // namespace qshard::bench
