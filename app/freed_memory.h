#pragma once

namespace qshard {

/// Tells the allocator to keep what is freed for the next request, where it can be told (glibc), and else does nothing.
/// The reference allocates the same matrices in each layer and step; by default each of them is new pages that the
/// system clears first. Concerns the whole process and no value.
void keep_freed_memory();

}  // namespace qshard
