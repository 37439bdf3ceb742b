#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/sharding/memory_plan.h"

namespace qshard::optimized {

/// Hands out pieces of one allocation, first fit, in the order in which the host asks. Nothing on the device is
/// touched, so the same requests give the same offsets and the same peak whether there is memory behind the arena or
/// not: a dry run of a step, with a null base, is the plan of the step. A piece that is given back may be handed out
/// again at once; that is right for work that is ordered by one stream.
class Arena {
 public:
  static constexpr std::int64_t kAlignment = 256;

  /// A piece, given back when it goes out of scope. Move-only.
  class Piece {
   public:
    Piece() = default;
    Piece(Piece&& other) noexcept;
    Piece& operator=(Piece&& other) noexcept;
    ~Piece();

    /// Null in a dry run.
    template <typename T = void>
    [[nodiscard]] T* as() const {
      return reinterpret_cast<T*>(memory_);
    }
    [[nodiscard]] std::int64_t offset() const { return offset_; }
    [[nodiscard]] bool empty() const { return arena_ == nullptr; }

   private:
    friend class Arena;
    Arena* arena_ = nullptr;
    std::byte* memory_ = nullptr;
    std::int64_t offset_ = 0;
    std::int64_t bytes_ = 0;
    std::size_t use_ = 0;
  };

  /// base null: a dry run, in which nothing may be read or written. capacity 0: no limit.
  Arena(std::byte* base, std::int64_t capacity);
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  [[nodiscard]] bool dry_run() const { return base_ == nullptr; }

  /// A piece aligned to kAlignment. `name` says in plans what it is for; pieces of one name are added up. Throws
  /// Error(out_of_resources) with the uses at that moment where the capacity is exceeded.
  [[nodiscard]] Piece take(std::int64_t bytes, const char* name);

  /// The end of the highest piece handed out so far: what an allocation must hold.
  [[nodiscard]] std::int64_t peak() const { return peak_; }
  /// What was in use when the peak was reached, largest first; gaps between pieces under "unused".
  [[nodiscard]] std::vector<MemoryUse> at_peak() const;

 private:
  struct Range {
    std::int64_t begin;
    std::int64_t end;
  };

  void give_back(const Piece& piece);
  std::size_t use_of(const char* name);
  [[nodiscard]] std::string describe_uses() const;

  std::byte* base_;
  std::int64_t capacity_;
  std::vector<Range> taken_;  // sorted, apart
  std::vector<MemoryUse> uses_;
  std::vector<MemoryUse> at_peak_;
  std::int64_t in_use_ = 0;
  std::int64_t peak_ = 0;
};

}  // namespace qshard::optimized
