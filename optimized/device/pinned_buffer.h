#pragma once

#include <cstddef>
#include <cstdint>

namespace qshard::optimized {

/// Host memory that copies to and from the device need not stage, freed with its owner. Contents undefined at first.
/// Throws Error(out_of_resources) where there is no such memory.
class PinnedBuffer {
 public:
  explicit PinnedBuffer(std::int64_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  [[nodiscard]] std::byte* data() const { return memory_; }

 private:
  std::byte* memory_ = nullptr;
};

}  // namespace qshard::optimized
