#include "core/base/trace_range.h"

#if QSHARD_HAS_NVTX
#include <nvtx3/nvToolsExt.h>
#endif

namespace qshard {

#if QSHARD_HAS_NVTX
TraceRange::TraceRange(const char* name) {
  nvtxRangePushA(name);
}

TraceRange::~TraceRange() {
  nvtxRangePop();
}
#else
TraceRange::TraceRange(const char* /*name*/) {}

TraceRange::~TraceRange() = default;
#endif

}  // namespace qshard
