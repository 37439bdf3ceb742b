#include <bit>

#include "optimized/device/cuda_check.h"
#include "optimized/device/dtype_dispatch.h"
#include "optimized/device_math.cuh"
#include "optimized/linear4bit/few_rows/few_rows.h"
#include "optimized/linear4bit/pair_table.cuh"
#include "optimized/ptx/matrix_instruction.cuh"

namespace qshard::optimized::few_rows {

namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kTileRows = 16;     // weight rows of a warp: those of one matrix instruction
constexpr int kRun = 32;          // consecutive elements of a lane: 16 bytes of codes
constexpr int kChunk = 4 * kRun;  // of a quad of lanes: two groups of 64, each inside one block
constexpr int kStep = 2 * kChunk;
constexpr int kSpan = 4 * kStep;  // of a warp: one step's scales for each lane of a quad

/// Arguments of the kernel; x [rows, in_features], y [rows, out_features].
template <typename T>
struct Task {
  const std::uint8_t* codes;
  BlockScales scales;
  CodebookValues codebook;
  int block_shift;
  int in_features;
  std::int64_t out_features;
  const T* x;
  std::int64_t x_stride;
  int rows;
  T* y;
  std::int64_t y_stride;
  bool aligned_scales;  // a step's four absmax codes are one aligned word of one nested block
  int warps_a_row;      // warps of a thread block that take turns on the same weight rows
};

__device__ __forceinline__ uint4 load_streaming(const std::uint8_t* codes) {
  uint4 quad;
  asm volatile("ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(quad.x), "=r"(quad.y), "=r"(quad.z), "=r"(quad.w)
               : "l"(codes));
  return quad;
}

/// One chunk of a lane's rows, g and g + 8 of the tile, as packed.
struct PackedChunk {
  uint4 rows[2];

  __device__ __forceinline__ std::uint32_t word(int half, int i) const {
    const uint4& row = rows[half];
    return i == 0 ? row.x : i == 1 ? row.y : i == 2 ? row.z : row.w;
  }
};

/// The scales of the four groups of 64 elements of one step, for one weight row: first as they lie in memory, so that
/// they can be on their way while the span before is computed, then decoded.
struct StepScales {
  std::uint32_t codes;
  float nested_absmax;
  float values[4];

  template <typename T>
  __device__ __forceinline__ void load(const Task<T>& task, std::int64_t first_block, int k) {
    if (k >= task.in_features) return;
    const std::int64_t block = first_block + (k >> task.block_shift);
    if (!task.scales.nested()) {
#pragma unroll
      for (int group = 0; group < 4; ++group) {
        const int group_k = min(k + 64 * group, task.in_features - 1);
        values[group] = __ldg(task.scales.absmax + first_block + (group_k >> task.block_shift));
      }
      return;
    }
    nested_absmax = __ldg(task.scales.nested_absmax + block / kNestedBlocksize);
    const std::uint8_t* source = task.scales.absmax_codes + block;
    if (task.aligned_scales) {
      codes = __ldg(reinterpret_cast<const std::uint32_t*>(source));
      return;
    }
    codes = 0;
#pragma unroll
    for (int group = 0; group < 4; ++group) {
      const int group_k = min(k + 64 * group, task.in_features - 1);
      codes |= static_cast<std::uint32_t>(__ldg(task.scales.absmax_codes + first_block + (group_k >> task.block_shift)))
               << (8 * group);
    }
  }

  /// Nested: two roundings, as everywhere. `map` and `offset`: of the nested statistics.
  template <typename T>
  __device__ __forceinline__ void decode(const Task<T>& task, std::int64_t first_block, int k, const float* map,
                                         float offset) {
    if (!task.scales.nested()) return;
    const std::int64_t nested = (first_block + (k >> task.block_shift)) / kNestedBlocksize;
#pragma unroll
    for (int group = 0; group < 4; ++group) {
      float absmax = nested_absmax;
      if (!task.aligned_scales) {
        // The groups of a step may lie in two nested blocks.
        const int group_k = min(k + 64 * group, task.in_features - 1);
        const std::int64_t own = (first_block + (group_k >> task.block_shift)) / kNestedBlocksize;
        if (own != nested) absmax = __ldg(task.scales.nested_absmax + own);
      }
      values[group] = nested_scale(map[codes >> (8 * group) & 255U], absmax, offset);
    }
  }
};

/// y = x W^T for very few rows, at the speed of reading W. Lane 4 * g + t holds run t of weight rows g and g + 8. One
/// matrix instruction would add up the four runs of a quad, which lie in two blocks; so each row of x is spread over
/// two of the instruction's eight columns, column 2 * m + j holding row m's elements of group j and zeros elsewhere,
/// and each column's sum gets its own block's scale.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) few_rows_kernel(const __grid_constant__ Task<T> task) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ float map[256];
  __shared__ float shared_sums[kWarps][8][kTileRows];
  const PairTable table(shared);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int group = lane / 4;
  const int quad_lane = lane % 4;
  const std::int64_t first_row =
      (static_cast<std::int64_t>(blockIdx.x) * (kWarps / task.warps_a_row) + warp / task.warps_a_row) * kTileRows;
  const int stride = task.warps_a_row * kSpan;

  const std::uint8_t* codes[2];
  std::int64_t first_block[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    // Rows past the end repeat the last one; their sums are dropped.
    const std::int64_t row = min(first_row + half * 8 + group, task.out_features - 1);
    codes[half] = task.codes + (row * task.in_features + quad_lane * kRun) / 2;
    first_block[half] = row * (task.in_features >> task.block_shift);
  }
  // Column `group` of the instruction is row group / 2 of x, and this lane's run belongs to it or not.
  const int x_row = group / 2;
  const bool holds_x = x_row < task.rows && quad_lane / 2 == group % 2;
  const T* x = task.x + (holds_x ? x_row * task.x_stride : 0) + quad_lane * kRun;

  const auto load_chunk = [&](PackedChunk& chunk, int k) {
    if (k + quad_lane * kRun >= task.in_features) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) chunk.rows[half] = load_streaming(codes[half] + static_cast<unsigned>(k) / 2);
  };

  int span = warp % task.warps_a_row * kSpan;
  PackedChunk chunks[2] = {};
  StepScales scales[2] = {};
  load_chunk(chunks[0], span);
  load_chunk(chunks[1], span + kChunk);
#pragma unroll
  for (int half = 0; half < 2; ++half) scales[half].load(task, first_block[half], span + quad_lane * kStep);
  const float offset = task.scales.nested() ? __ldg(task.scales.offset) : 0.0F;
  if (task.scales.nested() && threadIdx.x < 256) map[threadIdx.x] = __ldg(task.scales.nested_map + threadIdx.x);
  table.fill<T>(task.codebook);
  __syncthreads();

  float sums[4] = {};
  for (; span < task.in_features; span += stride) {
    float decoded[2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      scales[half].decode(task, first_block[half], span + quad_lane * kStep, map, offset);
#pragma unroll
      for (int i = 0; i < 4; ++i) decoded[half][i] = scales[half].values[i];
      scales[half].load(task, first_block[half], span + stride + quad_lane * kStep);
    }
#pragma unroll 1
    for (int step = 0; step < kSpan / kStep; ++step) {
      const int k = span + step * kStep;
      if (k >= task.in_features) break;
      const int next = step + 1 < kSpan / kStep ? k + kStep : span + stride;
#pragma unroll
      for (int chunk = 0; chunk < 2; ++chunk) {
        const int chunk_k = k + chunk * kChunk;
        std::uint32_t input[kRun / 2] = {};
        if (holds_x && chunk_k + quad_lane * kRun < task.in_features) {
#pragma unroll
          for (int i = 0; i < kRun / 8; ++i) {
            const uint4 quad = __ldg(reinterpret_cast<const uint4*>(x + chunk_k) + i);
            input[4 * i] = quad.x;
            input[4 * i + 1] = quad.y;
            input[4 * i + 2] = quad.z;
            input[4 * i + 3] = quad.w;
          }
        }
        float block[4] = {};
#pragma unroll
        for (int s = 0; s < kRun / 4; ++s) {
          const int byte = 2 * s % 4;
          const std::uint32_t low = chunks[chunk].word(0, s / 2);
          const std::uint32_t high = chunks[chunk].word(1, s / 2);
          mma_m16n8k16<T>(block, table(low, byte), table(high, byte), table(low, byte + 1), table(high, byte + 1),
                          input[2 * s], input[2 * s + 1]);
        }
        load_chunk(chunks[chunk], next + chunk * kChunk);  // in flight for a whole step
        // Sum i of a lane: weight row i / 2 * 8 + g, column 2 * t + i % 2, which is group i % 2 of the chunk.
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sums[i] += __shfl_sync(0xFFFFFFFFU, decoded[i / 2][2 * chunk + i % 2], step, 4) * block[i];
        }
      }
    }
  }

  // Add up the groups, then the warps, in their order.
#pragma unroll
  for (int i = 0; i < 4; ++i) shared_sums[warp][2 * quad_lane + i % 2][i / 2 * 8 + group] = sums[i];
  __syncthreads();
  if (warp % task.warps_a_row != 0) return;
  for (int i = lane; i < task.rows * kTileRows; i += 32) {
    const int row = i / kTileRows;
    const std::int64_t feature = first_row + i % kTileRows;
    if (feature >= task.out_features) continue;
    float sum = 0.0F;
    for (int other = warp; other < warp + task.warps_a_row; ++other) {
      sum += shared_sums[other][2 * row][i % kTileRows] + shared_sums[other][2 * row + 1][i % kTileRows];
    }
    *reinterpret_cast<std::uint16_t*>(task.y + row * task.y_stride + feature) =
        static_cast<std::uint16_t>(round_pair<T>(sum, 0.0F));
  }
}

template <typename T>
void launch(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  const Linear4bitShape& shape = problem.shape;
  // Enough warps to fill three quarters of a thread block on each multiprocessor: measured on an H200.
  const std::int64_t groups = block_count(shape.out_features, kTileRows);
  int warps_a_row = 1;
  while (warps_a_row < kWarps && warps_a_row * kSpan < shape.in_features &&
         4 * groups * warps_a_row < 3 * problem.device.multiprocessors * kWarps)
    warps_a_row *= 2;
  const Task<T> task{call.weight.codes,
                     BlockScales(call.weight),
                     CodebookValues(shape.quant_type),
                     std::countr_zero(static_cast<unsigned>(shape.blocksize)),
                     static_cast<int>(shape.in_features),
                     shape.out_features,
                     static_cast<const T*>(call.in),
                     call.in_stride,
                     static_cast<int>(problem.rows),
                     static_cast<T*>(call.out),
                     call.out_stride,
                     shape.blocksize == 64 && shape.in_features % kStep == 0 &&
                         reinterpret_cast<std::uintptr_t>(call.weight.absmax_codes) % 4 == 0,
                     warps_a_row};
  const auto kernel = few_rows_kernel<T>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, PairTable::kBytes));
  const auto grid = static_cast<unsigned>(block_count(groups, kWarps / warps_a_row));
  kernel<<<grid, kThreads, PairTable::kBytes, call.stream>>>(task);
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

bool supports(const Linear4bitProblem& problem) {
  constexpr int kNeeded = PairTable::kBytes + (8 << 10);  // and the kernel's own
  return problem.can_fuse() && problem.rows <= 4 && problem.shape.blocksize >= 64 &&
         problem.device.shared_memory >= kNeeded;
}

void run(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  dispatch_16bit(problem.shape.dtype, [&]<typename T>(std::type_identity<T>) { launch<T>(problem, call); });
}

}  // namespace qshard::optimized::few_rows
