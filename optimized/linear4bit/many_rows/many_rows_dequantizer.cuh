#pragma once

#include <cstdint>

#include "optimized/linear4bit/many_rows/many_rows_cut.h"
#include "optimized/linear4bit/many_rows/many_rows_tiles.cuh"
#include "optimized/ptx/named_barrier.cuh"
#include "optimized/ptx/shared_access.cuh"
#include "optimized/ptx/signals.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace qshard::optimized::many_rows {

/// A warp's part: dequantizes pieces of the weight to device memory, each time the one that is due next for anyone and
/// that no other warp has taken; but not long before this thread block's own product is there, so that what is written
/// is still in the cache when it is read. A warp never waits while it has a piece that is not done: so all pieces that
/// a product may wait for get done, however few of the thread blocks run at a time.
template <typename T, bool kForward>
class Dequantizer {
 public:
  __device__ __forceinline__ Dequantizer(const Task& task, const SharedMemory& shared)
      : task_(task),
        shared_(shared),
        order_(task),
        lane_(static_cast<int>(threadIdx.x) % 32),
        centroid_(task.codebook.value[threadIdx.x % 16]) {
    asm("" : "+r"(lane_), "+f"(centroid_));  // kept, not computed again
  }

  /// Each part's codes are on their way while the one before is rebuilt.
  __device__ __forceinline__ void run() {
    stage_map();
    take();
    Part part;
    for (;;) {
      while (!load_next(part)) {
        if (number_ >= order_.count()) return;
        __nanosleep(kNap);
      }
      for (bool more = true; more;) {
        wait_for(part);
        Part next;
        more = load_next(next);
        rebuild(part);
        if (part.last) signal(part.box.done(task_));
        if (more) part = next;
      }
    }
  }

 private:
  static constexpr int kLead = 24;       // steps; with 16 and 32 a product of 2,048 rows takes no less time
  static constexpr unsigned kNap = 200;  // ns
  static constexpr int kRows = 16;       // of a part
  static constexpr int kParts = kPieceRows / kRows;
  static constexpr int kScales = kRows / 8;  // of a lane: one a lane is enough for eight rows and four blocks
  static constexpr unsigned kAllLanes = 0xFFFFFFFFU;

  /// A lane's eight neighbouring elements of each row, and what the scales are decoded from.
  struct Part {
    WeightBox box;
    bool last;  // of its piece
    int rows;   // inside the weight, where they are fewer than kRows
    T* out;
    std::uint32_t codes[kRows];
    float absmax[kScales];  // nested: of the absmax code's block
    std::uint32_t absmax_code[kScales];
  };

  /// Copies the nested map to shared memory; all dequantizing warps call it.
  __device__ __forceinline__ void stage_map() {
    constexpr int kDequantizers = 32 * kDequantizerWarps;
    if (task_.scales.nested()) {
      offset_ = *task_.scales.offset;
      for (int i = static_cast<int>(threadIdx.x) - (kThreads - kDequantizers); i < 256; i += kDequantizers) {
        store_shared_u32(shared_.map() + 4 * i, __float_as_uint(task_.scales.nested_map[i]));
      }
    }
    named_barrier_sync<kWarpgroups + 1, kDequantizers>();
  }

  __device__ __forceinline__ void take() {
    if (lane_ == 0) taken_ = atomic_increment(task_.taken);
    parts_ = kParts;
  }

  /// Returns false where there is no further piece, or it is not due yet.
  __device__ __forceinline__ bool load_next(Part& part) {
    if (parts_ == kParts) {
      number_ = __shfl_sync(kAllLanes, taken_, 0);
      parts_ = 0;
      if (number_ < order_.count()) piece_ = order_.at(number_);
    }
    if (number_ >= order_.count() || (parts_ == 0 && !is_due())) return false;
    load(part);
    part.last = ++parts_ == kParts;
    if (part.last) take();
    return true;
  }

  __device__ __forceinline__ bool is_due() const {
    const int progress = lane_ == 0 ? atomic_load_shared(shared_.progress()) : 0;
    return piece_.due <= __shfl_sync(kAllLanes, progress, 0) + kLead;
  }

  __device__ __forceinline__ void load(Part& part) const {
    const int across = piece_.box.column_tile * kBox;
    const int along = piece_.box.inner * kBox;
    const int row = (kForward ? across : along) + piece_.part * kPieceRows + parts_ * kRows;
    const int first_column = kForward ? along : across;
    const int column = first_column + 8 * lane_;
    const std::int64_t element = static_cast<std::int64_t>(row) * task_.in_features + column;
    part.box = piece_.box;
    part.rows = rows_inside(row, column);
    part.out = static_cast<T*>(task_.weight) + element;
    const std::uint8_t* codes = task_.codes + element / 2;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      part.codes[i] = i < part.rows ? __ldcs(reinterpret_cast<const std::uint32_t*>(codes)) : 0;
      codes += task_.in_features / 2;
    }
    load_scales(part, row + lane_ / 4, first_column + (lane_ % 4 << max(6, task_.block_shift)));
  }

  /// Lane l's: of row l / 4 and each eighth after it, the block l % 4 of those that hold the part's columns.
  __device__ __forceinline__ void load_scales(Part& part, int row, int column) const {
    const int rows = rows_inside(row, column);
    const int blocks_a_row = task_.in_features >> task_.block_shift;
    std::int64_t block = static_cast<std::int64_t>(row) * blocks_a_row + (column >> task_.block_shift);
#pragma unroll
    for (int i = 0; i < kScales; ++i) {
      part.absmax[i] = 0.0F;
      part.absmax_code[i] = 0;
      if (8 * i < rows) {
        if (task_.scales.nested()) {
          part.absmax_code[i] = __ldg(task_.scales.absmax_codes + block);
          part.absmax[i] = __ldg(task_.scales.nested_absmax + block / kNestedBlocksize);
        } else {
          part.absmax[i] = __ldg(task_.scales.absmax + block);
        }
      }
      block += 8 * blocks_a_row;
    }
  }

  /// Of the weight, from `row` on; none where the column is outside.
  __device__ __forceinline__ int rows_inside(int row, int column) const {
    return column < task_.in_features ? task_.out_features - row : 0;
  }

  /// Before the next part is asked for: the processor cannot wait for one without those that were asked for later.
  __device__ __forceinline__ void wait_for(Part& part) const {
    const int zero = task_.steps >> 31;  // which the compiler does not know
#pragma unroll
    for (int i = 0; i < kRows; i += 5) asm volatile("or.b32 %0, %0, %1;" : "+r"(part.codes[i]) : "r"(zero));
#pragma unroll
    for (std::uint32_t& code : part.absmax_code) asm volatile("or.b32 %0, %0, %1;" : "+r"(code) : "r"(zero));
  }

  __device__ __forceinline__ float scale_of(const Part& part, int i) const {
    if (!task_.scales.nested()) return part.absmax[i];
    const float value = __uint_as_float(load_shared_u32(shared_.map() + 4 * part.absmax_code[i]));
    return nested_scale(value, part.absmax[i], offset_);
  }

  __device__ __forceinline__ void rebuild(const Part& part) const {
    const int own_block = 8 * lane_ >> task_.block_shift;
    float scales[kScales];
#pragma unroll
    for (int i = 0; i < kScales; ++i) scales[i] = scale_of(part, i);
    T* out = part.out;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float scale = __shfl_sync(kAllLanes, scales[i / 8], i % 8 * 4 + own_block);
      std::uint32_t pairs[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const std::uint32_t byte = part.codes[i] >> (8 * j);
        pairs[j] = round_pair<T>(multiply_ftz(centroid(byte >> 4), scale), multiply_ftz(centroid(byte), scale));
      }
      store_if(i < part.rows, out, pairs);
      out += task_.in_features;
    }
  }

  /// Looks up the code's lowest four bits: lane l keeps centroid l % 16, and a shuffle gets it from there.
  [[nodiscard]] __device__ __forceinline__ float centroid(std::uint32_t code) const {
    return __shfl_sync(kAllLanes, centroid_, static_cast<int>(code), 16);
  }

  /// Stores without a branch, which would keep the rows from overlapping.
  __device__ __forceinline__ static void store_if(bool inside, T* out, const std::uint32_t (&pairs)[4]) {
    asm volatile(
        "{.reg .pred inside; setp.ne.s32 inside, %0, 0; @inside st.global.v4.u32 [%1], {%2, %3, %4, %5};}" ::"r"(
            static_cast<int>(inside)),
        "l"(out), "r"(pairs[0]), "r"(pairs[1]), "r"(pairs[2]), "r"(pairs[3])
        : "memory");
  }

  const Task& task_;
  const SharedMemory& shared_;
  PieceOrder<Task> order_;
  int lane_;
  float centroid_;
  float offset_ = 0.0F;
  unsigned taken_ = 0;   // of lane 0, perhaps on its way
  unsigned number_ = 0;  // of the piece whose parts are asked for
  Piece piece_;
  int parts_;  // of it that are asked for
};

}  // namespace qshard::optimized::many_rows

#endif
