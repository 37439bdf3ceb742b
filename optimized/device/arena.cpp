#include "optimized/device/arena.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"

namespace qshard::optimized {

Arena::Piece::Piece(Piece&& other) noexcept {
  *this = std::move(other);
}

Arena::Piece& Arena::Piece::operator=(Piece&& other) noexcept {
  std::swap(arena_, other.arena_);
  std::swap(memory_, other.memory_);
  std::swap(offset_, other.offset_);
  std::swap(bytes_, other.bytes_);
  std::swap(use_, other.use_);
  return *this;
}

Arena::Piece::~Piece() {
  if (arena_ != nullptr) arena_->give_back(*this);
}

Arena::Arena(std::byte* base, std::int64_t capacity) : base_(base), capacity_(capacity) {}

Arena::Piece Arena::take(std::int64_t bytes, const char* name) {
  const std::int64_t size = (std::max<std::int64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  std::int64_t begin = 0;
  auto next = taken_.begin();
  while (next != taken_.end() && next->begin - begin < size) begin = (next++)->end;
  if (capacity_ > 0 && begin + size > capacity_) {
    fail(ExitCode::out_of_resources, "{} MiB for {} do not fit into the {} MiB set aside for this run; in use: {}",
         size >> 20, name, capacity_ >> 20, describe_uses());
  }
  taken_.insert(next, {begin, begin + size});

  Piece piece;
  piece.arena_ = this;
  piece.memory_ = base_ == nullptr ? nullptr : base_ + begin;
  piece.offset_ = begin;
  piece.bytes_ = size;
  piece.use_ = use_of(name);
  uses_[piece.use_].bytes += size;
  in_use_ += size;
  if (begin + size > peak_) {
    peak_ = begin + size;
    at_peak_ = uses_;
    at_peak_.push_back({"unused", peak_ - in_use_});
  }
  return piece;
}

void Arena::give_back(const Piece& piece) {
  const auto found = std::lower_bound(taken_.begin(), taken_.end(), piece.offset_,
                                      [](const Range& range, std::int64_t offset) { return range.begin < offset; });
  taken_.erase(found);
  uses_[piece.use_].bytes -= piece.bytes_;
  in_use_ -= piece.bytes_;
}

std::size_t Arena::use_of(const char* name) {
  const auto found =
      std::find_if(uses_.begin(), uses_.end(), [name](const MemoryUse& use) { return use.name == name; });
  if (found != uses_.end()) return static_cast<std::size_t>(found - uses_.begin());
  uses_.push_back({name, 0});
  return uses_.size() - 1;
}

std::vector<MemoryUse> Arena::at_peak() const {
  std::vector<MemoryUse> uses;
  std::copy_if(at_peak_.begin(), at_peak_.end(), std::back_inserter(uses),
               [](const MemoryUse& use) { return use.bytes > 0; });
  std::stable_sort(uses.begin(), uses.end(), [](const MemoryUse& a, const MemoryUse& b) { return a.bytes > b.bytes; });
  return uses;
}

std::string Arena::describe_uses() const {
  std::string text;
  for (const MemoryUse& use : uses_) {
    if (use.bytes == 0) continue;
    text += fmt::format("{}{} {} MiB", text.empty() ? "" : ", ", use.name, use.bytes >> 20);
  }
  return text;
}

}  // namespace qshard::optimized
