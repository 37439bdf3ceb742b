#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/gpu/row.h"

namespace qshard::bench {

/// The rows as a Markdown table, problem by problem: median time, GB/s and its share of the copy ceiling, TFLOP/s and
/// its share of the product ceiling, and the time over each other provider's time on the same problem (below 1:
/// faster). GB and TFLOP are powers of ten. A failed row shows its error.
std::string format_table(const std::vector<std::unique_ptr<Row>>& rows, const Ceilings& ceilings);

}  // namespace qshard::bench
