#include <algorithm>
#include <bit>

#include "optimized/device/cuda_check.h"
#include "optimized/device/dtype_dispatch.h"
#include "optimized/device_math.cuh"
#include "optimized/linear4bit/fused/fused.h"
#include "optimized/ptx/matrix_instruction.cuh"

namespace qshard::optimized::fused {

namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFU;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTileRows = 16;    // weight rows of one matrix instruction
constexpr int kTileColumns = 8;  // rows of x of one matrix instruction
constexpr int kChunks = 4;       // chunks of a step: one for each lane of a quad

/// Arguments of the kernel. A warp owns kRowTiles * 16 rows of the weight and walks along them in steps of kChunks
/// chunks of 4 * kRun elements; warps_a_row warps of a thread block take turns on the same rows, and so do the slices
/// of the grid's y axis, whose sums go to `partials`.
template <typename T>
struct Task {
  const std::uint8_t* codes;
  BlockScales scales;
  CodebookValues codebook;
  int block_shift;
  std::int64_t out_features;
  int in_features;
  const T* x;
  std::int64_t x_stride;
  int rows;
  T* y;
  std::int64_t y_stride;
  float* partials;  // [slices, rows, out_features]; null with one slice
  int warps_a_row;
  int steps_a_slice;
};

/// Every pair of centroids as two T in one word, once for each memory bank: lane l reads copy l, so that no look-up
/// waits for another. Byte b of packed codes is row b: the centroid of its high nibble in the lower half.
struct CompactPairTable {
  std::uint32_t pair[256][32];

  template <typename T>
  __device__ __forceinline__ void fill(const CodebookValues& codebook) {
    for (int byte = static_cast<int>(threadIdx.x); byte < 256; byte += kThreads) {
      const std::uint32_t value = round_pair<T>(codebook.value[byte / 16], codebook.value[byte % 16]);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int quad = (i + static_cast<int>(threadIdx.x)) % 8;  // threads of a phase write to different banks
        *reinterpret_cast<uint4*>(&pair[byte][4 * quad]) = make_uint4(value, value, value, value);
      }
    }
  }

  /// The pair of byte `index` of `word`.
  __device__ __forceinline__ std::uint32_t look_up(std::uint32_t word, int index, std::uint32_t lane_offset) const {
    const std::uint32_t moved = index == 0 ? word << 7 : word >> (8 * index - 7);
    return *reinterpret_cast<const std::uint32_t*>(reinterpret_cast<const char*>(pair) +
                                                   ((moved & 0x7F80U) | lane_offset));
  }
};

/// kRun packed codes of one row: kRun / 8 words.
template <int kRun>
struct PackedRun {
  std::uint32_t words[kRun / 8];

  __device__ __forceinline__ void load(const std::uint8_t* codes) {
    if constexpr (kRun == 16) {
      const uint2 both = __ldcs(reinterpret_cast<const uint2*>(codes));
      words[0] = both.x;
      words[1] = both.y;
    } else {
      words[0] = __ldcs(reinterpret_cast<const std::uint32_t*>(codes));
    }
  }
};

/// Where a lane reads its part of one weight row: its run of the first chunk, and the row's first scale.
struct RowCursor {
  const std::uint8_t* codes;
  std::int64_t first_block;
};

/// What a warp reads of its rows for one step, before decoding. Lane 4 * g + t holds rows g and g + 8 of each tile: of
/// every chunk its run t, and of chunk t its scale.
template <int kRun, int kRowTiles>
struct Step {
  PackedRun<kRun> runs[kRowTiles][2][kChunks];
  float scales[kRowTiles][2];

  template <typename T>
  __device__ __forceinline__ void load_chunk(const Task<T>& task, const RowCursor (&rows)[kRowTiles][2], int k,
                                             int chunk) {
    if (k + chunk * 4 * kRun >= task.in_features) return;
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        runs[tile][half][chunk].load(rows[tile][half].codes + k / 2 + chunk * 2 * kRun);
      }
    }
  }

  template <typename T>
  __device__ __forceinline__ void load_scales(const Task<T>& task, const RowCursor (&rows)[kRowTiles][2], int k,
                                              int quad_lane) {
    const int own_k = k + quad_lane * 4 * kRun;
    const int block = own_k >> task.block_shift;
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        scales[tile][half] = own_k < task.in_features ? task.scales[rows[tile][half].first_block + block] : 0.0F;
      }
    }
  }
};

/// A lane's run of one row of x.
template <int kRun>
struct InputRun {
  std::uint32_t pairs[kRun / 2];

  template <typename T>
  __device__ __forceinline__ InputRun(const T* x, bool present) {
#pragma unroll
    for (int i = 0; i < kRun / 8; ++i) {
      uint4 quad = {};
      if (present) quad = __ldg(reinterpret_cast<const uint4*>(x) + i);
      pairs[4 * i] = quad.x;
      pairs[4 * i + 1] = quad.y;
      pairs[4 * i + 2] = quad.z;
      pairs[4 * i + 3] = quad.w;
    }
  }
};

template <typename T>
__device__ __forceinline__ void write_sum(const Task<T>& task, std::int64_t feature, int row, float sum) {
  if (row >= task.rows || feature >= task.out_features) return;
  if (task.partials != nullptr) {
    task.partials[(static_cast<std::int64_t>(blockIdx.y) * task.rows + row) * task.out_features + feature] = sum;
  } else {
    *reinterpret_cast<std::uint16_t*>(task.y + row * task.y_stride + feature) =
        static_cast<std::uint16_t>(round_pair<T>(sum, 0.0F));
  }
}

/// The order of the inner dimension within a chunk is free as long as weight and x agree: matrix instruction s takes
/// elements 4s to 4s + 3 of each lane's run, which are two whole bytes of codes.
template <typename T, int kRun, int kRowTiles, int kColumnTiles>
__global__ void __launch_bounds__(kThreads, kColumnTiles <= 2 ? 2 : 1)
    fused_kernel(const __grid_constant__ Task<T> task) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int group_row = lane / 4;
  const int quad_lane = lane % 4;
  constexpr int kStep = kChunks * 4 * kRun;
  const std::int64_t first_row =
      (static_cast<std::int64_t>(blockIdx.x) * (kWarps / task.warps_a_row) + warp / task.warps_a_row) *
      (kRowTiles * kTileRows);
  RowCursor rows[kRowTiles][2];
#pragma unroll
  for (int tile = 0; tile < kRowTiles; ++tile) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Rows past the end repeat the last one; their sums are dropped.
      const std::int64_t row = min(first_row + tile * kTileRows + half * 8 + group_row, task.out_features - 1);
      rows[tile][half] = {task.codes + (row * task.in_features + quad_lane * kRun) / 2,
                          row * (task.in_features >> task.block_shift)};
    }
  }
  const T* x_run = task.x + group_row * task.x_stride + quad_lane * kRun;
  const int begin = static_cast<int>(blockIdx.y) * task.steps_a_slice * kStep;
  const int end = min(task.in_features, begin + task.steps_a_slice * kStep);
  const int stride = task.warps_a_row * kStep;
  int k = begin + warp % task.warps_a_row * kStep;

  Step<kRun, kRowTiles> step = {};
  if (k < end) {
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) step.load_chunk(task, rows, k, chunk);
    step.load_scales(task, rows, k, quad_lane);
  }
  __shared__ CompactPairTable table;
  table.fill<T>(task.codebook);
  __syncthreads();

  float sums[kRowTiles][kColumnTiles][4] = {};
  const std::uint32_t lane_offset = lane * sizeof(std::uint32_t);
  for (; k < end; k += stride) {
    const bool more = k + stride < end;
    float step_scales[kRowTiles][2];
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i) step_scales[i / 2][i % 2] = step.scales[i / 2][i % 2];
    if (more) step.load_scales(task, rows, k + stride, quad_lane);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      std::uint32_t weights[kRowTiles][2][kRun / 2];
      float scales[kRowTiles][2];
#pragma unroll
      for (int tile = 0; tile < kRowTiles; ++tile) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          scales[tile][half] = __shfl_sync(kAllLanes, step_scales[tile][half], chunk, 4);
#pragma unroll
          for (int byte = 0; byte < kRun / 2; ++byte) {
            weights[tile][half][byte] =
                table.look_up(step.runs[tile][half][chunk].words[byte / 4], byte % 4, lane_offset);
          }
        }
      }
      if (more) step.load_chunk(task, rows, k + stride, chunk);  // in flight for a whole step
      const int chunk_k = k + chunk * 4 * kRun;
      const bool inside = chunk_k < task.in_features;
      const T* x = x_run + chunk_k;
      InputRun<kRun> next(x, inside && group_row < task.rows);
#pragma unroll
      for (int column = 0; column < kColumnTiles; ++column) {
        const InputRun<kRun> input = next;
        x += kTileColumns * task.x_stride;
        if (column + 1 < kColumnTiles) {  // on its way while this one is multiplied
          next = InputRun<kRun>(x, inside && (column + 1) * kTileColumns + group_row < task.rows);
        }
#pragma unroll
        for (int tile = 0; tile < kRowTiles; ++tile) {
          float block[4] = {};
#pragma unroll
          for (int s = 0; s < kRun / 4; ++s) {
            mma_m16n8k16<T>(block, weights[tile][0][2 * s], weights[tile][1][2 * s], weights[tile][0][2 * s + 1],
                            weights[tile][1][2 * s + 1], input.pairs[2 * s], input.pairs[2 * s + 1]);
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[tile][column][i] += scales[tile][i / 2] * block[i];
        }
      }
    }
  }

  if (task.warps_a_row == 1) {
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
#pragma unroll
      for (int column = 0; column < kColumnTiles; ++column) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          write_sum(task, first_row + tile * kTileRows + i / 2 * 8 + group_row,
                    column * kTileColumns + 2 * quad_lane + i % 2, sums[tile][column][i]);
        }
      }
    }
  } else if constexpr (kRowTiles == 1 && kColumnTiles == 1) {
    // The warps that shared rows add up their sums, in their order.
    __shared__ float shared_sums[kWarps][kTileColumns][kTileRows];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      shared_sums[warp][2 * quad_lane + i % 2][i / 2 * 8 + group_row] = sums[0][0][i];
    }
    __syncthreads();
    if (warp % task.warps_a_row != 0) return;
    for (int i = lane; i < kTileRows * kTileColumns; i += 32) {
      float sum = 0.0F;
      for (int other = warp; other < warp + task.warps_a_row; ++other) {
        sum += shared_sums[other][i / kTileRows][i % kTileRows];
      }
      write_sum(task, first_row + i % kTileRows, i / kTileRows, sum);
    }
  }
}

/// y = the sum of the slices' partial sums, in their order.
template <typename T>
__global__ void __launch_bounds__(kThreads) add_slices_kernel(Task<T> task, int slices) {
  const std::int64_t count = task.rows * task.out_features;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  float sum = 0.0F;
  for (int slice = 0; slice < slices; ++slice) sum += task.partials[slice * count + i];
  *reinterpret_cast<std::uint16_t*>(task.y + i / task.out_features * task.y_stride + i % task.out_features) =
      static_cast<std::uint16_t>(round_pair<T>(sum, 0.0F));
}

/// How the work is cut. Tuned on an H200 (132 multiprocessors) with 28672 x 8192 and 8192 x 28672.
struct Cut {
  int run;  // consecutive elements of a lane: a quarter of a chunk, which must not cross a block
  int row_tiles;
  int column_tiles;
  int warps_a_row = 1;
  int slices = 1;
  std::int64_t thread_blocks;
  int steps_a_slice;

  explicit Cut(const Linear4bitProblem& problem) : run(problem.shape.blocksize >= 64 ? 16 : 8) {
    const std::int64_t rows = problem.rows;
    column_tiles = rows <= 8 ? 1 : rows <= 16 ? 2 : rows <= 32 ? 4 : 8;
    row_tiles = column_tiles == 1 ? 1 : 2;
    const std::int64_t resident = problem.device.multiprocessors * (column_tiles <= 2 ? 2 : 1);
    const std::int64_t groups = block_count(problem.shape.out_features, row_tiles * kTileRows);
    const std::int64_t steps = block_count(problem.shape.in_features, kChunks * 4 * run);
    if (column_tiles == 1) {
      while (warps_a_row < kWarps && 4 * groups * warps_a_row < 3 * resident * kWarps) warps_a_row *= 2;
    }
    thread_blocks = block_count(groups, kWarps / warps_a_row);
    if (column_tiles > 1) slices = static_cast<int>(std::clamp<std::int64_t>(resident / thread_blocks, 1, steps));
    steps_a_slice = static_cast<int>(block_count(steps, slices));
    slices = static_cast<int>(block_count(steps, steps_a_slice));
  }
};

template <typename T, int kRun>
void launch_columns(const Task<T>& task, const Cut& cut, dim3 grid, cudaStream_t stream) {
  switch (cut.column_tiles) {
    case 1:
      fused_kernel<T, kRun, 1, 1><<<grid, kThreads, 0, stream>>>(task);
      break;
    case 2:
      fused_kernel<T, kRun, 2, 2><<<grid, kThreads, 0, stream>>>(task);
      break;
    case 4:
      fused_kernel<T, kRun, 2, 4><<<grid, kThreads, 0, stream>>>(task);
      break;
    default:
      fused_kernel<T, kRun, 2, 8><<<grid, kThreads, 0, stream>>>(task);
      break;
  }
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

template <typename T>
void launch(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  const Linear4bitShape& shape = problem.shape;
  const Cut cut(problem);
  const Task<T> task{call.weight.codes,
                     BlockScales(call.weight),
                     CodebookValues(shape.quant_type),
                     std::countr_zero(static_cast<unsigned>(shape.blocksize)),
                     shape.out_features,
                     static_cast<int>(shape.in_features),
                     static_cast<const T*>(call.in),
                     call.in_stride,
                     static_cast<int>(problem.rows),
                     static_cast<T*>(call.out),
                     call.out_stride,
                     cut.slices > 1 ? static_cast<float*>(call.workspace) : nullptr,
                     cut.warps_a_row,
                     cut.steps_a_slice};
  const dim3 grid(static_cast<unsigned>(cut.thread_blocks), static_cast<unsigned>(cut.slices));
  if (cut.run == 16) {
    launch_columns<T, 16>(task, cut, grid, call.stream);
  } else {
    launch_columns<T, 8>(task, cut, grid, call.stream);
  }
  if (cut.slices == 1) return;
  const auto add_blocks = static_cast<unsigned>(block_count(problem.rows * shape.out_features, kThreads));
  add_slices_kernel<T><<<add_blocks, kThreads, 0, call.stream>>>(task, cut.slices);
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

bool supports(const Linear4bitProblem& problem) {
  return problem.can_fuse();
}

bool pays(const Linear4bitProblem& problem) {
  constexpr std::int64_t kSmall = std::int64_t{10} << 20;
  const std::int64_t most_rows = problem.shape.out_features * problem.shape.in_features < kSmall ? 16 : 48;
  return problem.rows <= most_rows;
}

std::size_t workspace_bytes(const Linear4bitProblem& problem) {
  const Cut cut(problem);
  if (cut.slices == 1) return 0;
  return sizeof(float) * static_cast<std::size_t>(cut.slices * problem.rows * problem.shape.out_features);
}

void run(const Linear4bitProblem& problem, const Linear4bitCall& call) {
  dispatch_16bit(problem.shape.dtype, [&]<typename T>(std::type_identity<T>) { launch<T>(problem, call); });
}

}  // namespace qshard::optimized::fused
