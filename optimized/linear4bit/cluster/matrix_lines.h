#pragma once

#include "optimized/host_device.h"

namespace qshard::optimized::cluster {

/// The feature, of a tile's, that is row `line` of the matrix instructions: of each 16 the even ones come first, so
/// that a lane, which has rows g and g + 8 of 16, has two neighbours.
QSHARD_HOST_DEVICE int feature_of_line(int line) {
  return line / 16 * 16 + line % 8 * 2 + line / 8 % 2;
}

/// The line that a thread dequantizes forward, so that of eight neighbouring threads neither features' codes nor lines
/// are in the same banks of shared memory.
QSHARD_HOST_DEVICE int forward_line(int thread) {
  return thread ^ (thread & 4) << 1;
}

}  // namespace qshard::optimized::cluster
