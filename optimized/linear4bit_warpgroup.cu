#include <algorithm>
#include <bit>

#include "optimized/cuda_check.h"
#include "optimized/device_math.cuh"
#include "optimized/linear4bit_fused.h"
#include "optimized/warpgroup_instruction.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 256;
constexpr int kTileRows = 128;  // weight rows of a thread block: two warpgroups of 64
constexpr int kChunks = 4;      // chunks of a step: one for each lane of a quad
constexpr int kStages = 3;      // pieces of x in shared memory, two chunks each
constexpr int kStageChunks = 2;
constexpr std::uint32_t kTableBytes = 256 * 128;

/// Arguments of the kernel. A chunk is 4 * run elements of the inner dimension; packed_x has for each chunk what the
/// matrix instructions take (pack_kernel). Slices of the grid's y axis share the steps and write `partials`.
template <typename T>
struct WarpgroupTask {
  const std::uint8_t* codes;
  BlockScales scales;
  CodebookValues codebook;
  int block_shift;
  int in_features;
  std::int64_t out_features;
  const T* packed_x;
  int rows;
  T* y;
  std::int64_t y_stride;
  float* partials;  // [slices, rows, out_features]; null with one slice
  int steps;
  int steps_a_slice;
};

/// Which run of a chunk a lane of a quad holds. Lanes that load 16 bytes at once get two runs of one chunk; they swap
/// one with the lane two away, which leaves runs 1 and 2 in each other's place.
__device__ __forceinline__ int run_of(int quad_lane, int run) {
  return run == 16 && (quad_lane == 1 || quad_lane == 2) ? 3 - quad_lane : quad_lane;
}

/// Lays x out as warpgroup_multiply() reads it, rows past the end as zeros. Of each chunk matrix instruction s takes
/// elements 4 s to 4 s + 3 of the four lanes' runs, in the order in which a lane's registers hold the weight's: first
/// the lower pair of every lane, then the upper one. One thread 16 bytes: [chunk][s][row / 8][pair][row % 8].
template <typename T>
__global__ void __launch_bounds__(kThreads) pack_kernel(const T* x, std::int64_t x_stride, int rows, int in_features,
                                                        int run, int padded_rows, std::int64_t count, uint4* packed) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int row = static_cast<int>(i / 16 % (padded_rows / 8) * 8 + i % 8);
  const int pair = static_cast<int>(i / 8 % 2);
  const std::int64_t instruction = i / (2 * padded_rows);
  const int s = static_cast<int>(instruction % (run / 4));
  const std::int64_t chunk = instruction / (run / 4);
  alignas(sizeof(uint4)) T values[8];
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    const std::int64_t k = chunk * 4 * run + run_of(e / 2, run) * run + 4 * s + 2 * pair + e % 2;
    values[e] = row < rows && k < in_features ? x[row * x_stride + k] : T(0.0F);
  }
  packed[i] = *reinterpret_cast<const uint4*>(values);
}

/// Shared memory: the pair table at a multiple of its size, so that a look-up's address is one bit operation; the
/// stages behind it; the small things in the room before it.
struct SharedLayout {
  std::uint32_t barriers;  // full[kStages], empty[kStages]
  std::uint32_t map;
  std::uint32_t table;
  std::uint32_t stages;

  static constexpr std::uint32_t bytes(std::uint32_t stage_bytes) { return 2 * kTableBytes + kStages * stage_bytes; }
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ __forceinline__ SharedLayout layout_of(const void* room) {
  constexpr std::uint32_t kSmall = 2048;  // barriers and map
  const auto first = static_cast<std::uint32_t>(__cvta_generic_to_shared(room));
  const std::uint32_t table = (first + kSmall + kTableBytes - 1) / kTableBytes * kTableBytes;
  return {first, first + 128, table, table + kTableBytes};
}

/// Every pair of centroids as two T in one word, once for each memory bank: lane l reads copy l.
template <typename T>
__device__ __forceinline__ void fill_pairs(std::uint32_t table, const CodebookValues& codebook) {
  for (int i = static_cast<int>(threadIdx.x); i < 256 * 8; i += kThreads) {
    const std::uint32_t value = round_pair<T>(codebook.value[i / 8 / 16], codebook.value[i / 8 % 16]);
    asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(table + 16 * i), "r"(value) : "memory");
  }
}

__device__ __forceinline__ std::uint32_t look_up(std::uint32_t own_copy, std::uint32_t word, int byte) {
  const std::uint32_t moved = byte == 0 ? word << 7 : word >> (8 * byte - 7);
  std::uint32_t pair;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(pair) : "r"((moved & 0x7F80U) | own_copy));
  return pair;
}

/// What a warp reads of its rows g and g + 8 for one step: of every chunk a lane's run, and of chunk t (its place in
/// the quad) the scale, as it lies in memory.
template <int kRun>
struct Step {
  std::uint32_t words[2][kChunks * kRun / 8];
  float absmax[2];  // nested: of the nested block
  std::uint32_t absmax_code[2];

  static constexpr int kLoadChunks = kRun == 16 ? 2 : 1;  // of one load

  /// codes: where the lane's first load begins. Loads the chunks from `chunk` on, a multiple of kLoadChunks.
  template <typename T>
  __device__ __forceinline__ void load_chunks(const WarpgroupTask<T>& task, const std::uint8_t* const (&codes)[2],
                                              int k, int chunk, int quad_lane) {
    if (k + chunk * 4 * kRun + quad_lane * kRun * kLoadChunks >= task.in_features) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint8_t* source = codes[half] + static_cast<unsigned>(k) / 2 + chunk * 2 * kRun;
      std::uint32_t* to = words[half] + chunk * kRun / 8;
      if constexpr (kRun == 16) {
        asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "l"(source));
      } else {
        asm volatile("ld.global.L1::no_allocate.u32 %0, [%1];" : "=r"(to[0]) : "l"(source));
      }
    }
  }

  /// Gives every lane its run of both chunks of a load (run_of).
  __device__ __forceinline__ void exchange(int chunk, int quad_lane) {
    if constexpr (kRun == 16) {
      const bool upper = quad_lane >= 2;  // holds the second chunk
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        std::uint32_t* own = words[half] + chunk * kRun / 8;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const std::uint32_t received = __shfl_xor_sync(0xFFFFFFFFU, upper ? own[i] : own[i + 2], 2);
          if (upper) {
            own[i] = received;
          } else {
            own[i + 2] = received;
          }
        }
      }
    }
  }

  template <typename T>
  __device__ __forceinline__ void load_scales(const WarpgroupTask<T>& task, const std::int64_t (&first_block)[2],
                                              int own_k) {
    if (own_k >= task.in_features) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t block = first_block[half] + (own_k >> task.block_shift);
      if (task.scales.absmax != nullptr) {
        absmax[half] = __ldg(task.scales.absmax + block);
      } else {
        absmax_code[half] = __ldg(task.scales.absmax_codes + block);
        absmax[half] = __ldg(task.scales.nested_absmax + block / kNestedBlocksize);
      }
    }
  }
};

/// Which stage is next, and the parity of its barriers' phase.
template <int kCount>
struct StageCounter {
  int stage = 0;
  int parity = 0;

  __device__ __forceinline__ void advance() {
    ++stage;
    if (stage < kCount) return;
    stage = 0;
    parity ^= 1;
  }
};

/// y = x W^T for 5 to 64 rows. Each lane turns its codes into the registers of a weight tile by table look-ups; x comes
/// to shared memory by bulk copies and is multiplied from there; the sum over a chunk, which lies in one block, gets
/// its scale in float.
template <typename T, int kRun, int kColumnTiles>
__device__ __forceinline__ void multiply_tile(const WarpgroupTask<T>& task, unsigned char* room) {
  constexpr int kInstructions = kRun / 4;                             // of a chunk
  constexpr std::uint32_t kInstructionBytes = kColumnTiles * 8 * 32;  // of x
  constexpr std::uint32_t kChunkBytes = kInstructions * kInstructionBytes;
  constexpr std::uint32_t kStageBytes = kStageChunks * kChunkBytes;
  constexpr int kStep = kChunks * 4 * kRun;
  const SharedLayout shared = layout_of(room);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int group = lane / 4;
  const int quad_lane = lane % 4;
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x) * kTileRows + threadIdx.x / 32 * 16;

  const std::uint8_t* codes[2];
  std::int64_t first_block[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    // Rows past the end repeat the last one; their sums are dropped.
    const std::int64_t row = min(first_row + half * 8 + group, task.out_features - 1);
    codes[half] = task.codes + (row * task.in_features + quad_lane * kRun * Step<kRun>::kLoadChunks) / 2;
    first_block[half] = row * (task.in_features >> task.block_shift);
  }
  const int first_step = static_cast<int>(blockIdx.y) * task.steps_a_slice;
  const int end_step = min(task.steps, first_step + task.steps_a_slice);
  const int stages = (end_step - first_step) * (kChunks / kStageChunks);
  const auto* stage_source = reinterpret_cast<const unsigned char*>(task.packed_x) +
                             static_cast<std::int64_t>(first_step) * kChunks * kChunkBytes;

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      barrier_init(shared.barriers + 8 * stage, 1);
      barrier_init(shared.barriers + 8 * (kStages + stage), kThreads / 32);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    for (int stage = 0; stage < min(kStages, stages); ++stage) {
      bulk_copy(shared.stages + stage * kStageBytes, stage_source + static_cast<std::int64_t>(stage) * kStageBytes,
                kStageBytes, shared.barriers + 8 * stage);
    }
  }
  Step<kRun> step = {};
  int k = first_step * kStep;
#pragma unroll
  for (int chunk = 0; chunk < kChunks; chunk += Step<kRun>::kLoadChunks) {
    step.load_chunks(task, codes, k, chunk, quad_lane);
  }
  step.load_scales(task, first_block, k + quad_lane * 4 * kRun);
  const bool nested = task.scales.absmax == nullptr;
  const float offset = nested ? __ldg(task.scales.offset) : 0.0F;
  if (nested) {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(shared.map + 4 * threadIdx.x),
                 "f"(__ldg(task.scales.nested_map + threadIdx.x))
                 : "memory");
  }
  fill_pairs<T>(shared.table, task.codebook);
  __syncthreads();

  const std::uint32_t own_copy = shared.table + 4 * lane;
  float sums[4 * kColumnTiles] = {};
  float block[4 * kColumnTiles];
  float low = 0.0F;  // scales of the chunk under way, of rows g and g + 8
  float high = 0.0F;
  StageCounter<kStages> read;
  StageCounter<kStages> freed;
  int loaded = kStages;  // stages asked for
  // Ends the chunk under way, and gives its stage back where it was the last one of it.
  const auto finish = [&](bool ends_stage) {
    warpgroup_wait(block);
#pragma unroll
    for (int i = 0; i < 4 * kColumnTiles; ++i) sums[i] += (i / 2 % 2 == 0 ? low : high) * block[i];
    if (!ends_stage) return;
    const std::uint32_t full = shared.barriers + 8 * freed.stage;
    const std::uint32_t empty = full + 8 * kStages;
    if (lane == 0) barrier_arrive(empty);
    if (threadIdx.x == 0 && loaded < stages) {
      barrier_wait(empty, freed.parity);
      bulk_copy(shared.stages + freed.stage * kStageBytes,
                stage_source + static_cast<std::int64_t>(loaded) * kStageBytes, kStageBytes, full);
      ++loaded;
    }
    freed.advance();
  };

  for (int s = first_step; s < end_step; ++s, k += kStep) {
    const bool more = s + 1 < end_step;
    float scales[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      scales[half] = step.absmax[half];
      if (nested) {
        float centroid;
        asm volatile("ld.shared.f32 %0, [%1];" : "=f"(centroid) : "r"(shared.map + 4 * step.absmax_code[half]));
        scales[half] = __fadd_rn(multiply_ftz(centroid, step.absmax[half]), offset);
      }
    }
    if (more) step.load_scales(task, first_block, k + kStep + quad_lane * 4 * kRun);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      // While the matrix unit works on the chunk before, look this one up; with many columns registers are too few.
      if (chunk > 0 && kColumnTiles == 8) finish(chunk % kStageChunks == 0);
      if (chunk % Step<kRun>::kLoadChunks == 0) step.exchange(chunk, quad_lane);
      std::uint32_t weights[kInstructions][4];
#pragma unroll
      for (int i = 0; i < kInstructions; ++i) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {  // registers of the instruction: lower pair of rows g and g + 8, then upper pair
          const int byte = 2 * i + r / 2;
          weights[i][r] = look_up(own_copy, step.words[r % 2][chunk * kRun / 8 + byte / 4], byte % 4);
        }
      }
      if (more && (chunk + 1) % Step<kRun>::kLoadChunks == 0) {  // in flight for a whole step
        step.load_chunks(task, codes, k + kStep, chunk + 1 - Step<kRun>::kLoadChunks, quad_lane);
      }
      if (chunk > 0 && kColumnTiles != 8) finish(chunk % kStageChunks == 0);
      if (chunk % kStageChunks == 0) barrier_wait(shared.barriers + 8 * read.stage, read.parity);
      low = __shfl_sync(0xFFFFFFFFU, scales[0], chunk, 4);
      high = __shfl_sync(0xFFFFFFFFU, scales[1], chunk, 4);
      const std::uint32_t source = shared.stages + read.stage * kStageBytes + chunk % kStageChunks * kChunkBytes;
      warpgroup_fence();
#pragma unroll
      for (int i = 0; i < kInstructions; ++i) {
        warpgroup_multiply<T>(block, weights[i], matrix_descriptor(source + i * kInstructionBytes), i > 0);
      }
      warpgroup_commit();
      if (chunk % kStageChunks == kStageChunks - 1) read.advance();
    }
    finish(true);
  }

#pragma unroll
  for (int i = 0; i < 4 * kColumnTiles; ++i) {
    const int row = i / 4 * 8 + 2 * quad_lane + i % 2;
    const std::int64_t feature = first_row + i / 2 % 2 * 8 + group;
    if (row >= task.rows || feature >= task.out_features) continue;
    if (task.partials != nullptr) {
      task.partials[(static_cast<std::int64_t>(blockIdx.y) * task.rows + row) * task.out_features + feature] = sums[i];
    } else {
      *reinterpret_cast<std::uint16_t*>(task.y + row * task.y_stride + feature) =
          static_cast<std::uint16_t>(round_pair<T>(sums[i], 0.0F));
    }
  }
}

#endif

template <typename T, int kRun, int kColumnTiles>
__global__ void __launch_bounds__(kThreads, 2) warpgroup_kernel(const __grid_constant__ WarpgroupTask<T> task) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(128) unsigned char room[];
  multiply_tile<T, kRun, kColumnTiles>(task, room);
#else
  __trap();
#endif
}

/// y = the sum of the slices' partial sums, in their order.
template <typename T>
__global__ void __launch_bounds__(kThreads) add_slices_kernel(const float* partials, int slices, int rows,
                                                              std::int64_t out_features, T* y, std::int64_t y_stride) {
  const std::int64_t count = rows * out_features;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  float sum = 0.0F;
  for (int slice = 0; slice < slices; ++slice) sum += partials[slice * count + i];
  *reinterpret_cast<std::uint16_t*>(y + i / out_features * y_stride + i % out_features) =
      static_cast<std::uint16_t>(round_pair<T>(sum, 0.0F));
}

/// How the work is cut, and where things are in the workspace.
struct Cut {
  int run;  // consecutive elements of a lane: a quarter of a chunk, which must not cross a block
  int column_tiles;
  int steps;
  int steps_a_slice;
  int slices;
  std::int64_t tiles;
  std::size_t packed_bytes;
  std::size_t partial_bytes;

  Cut(const Linear4bit& layer, std::int64_t rows) : run(layer.weight.blocksize >= 64 ? 16 : 8) {
    int device = 0;
    int multiprocessors = 0;
    QSHARD_CUDA_CHECK(cudaGetDevice(&device));
    QSHARD_CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
    column_tiles = rows <= 16 ? 2 : rows <= 32 ? 4 : 8;
    steps = static_cast<int>(block_count(layer.in_features, kChunks * 4 * run));
    tiles = block_count(layer.out_features, kTileRows);
    // Two thread blocks on each multiprocessor at once.
    slices = static_cast<int>(std::clamp<std::int64_t>(2 * multiprocessors / tiles, 1, steps));
    steps_a_slice = static_cast<int>(block_count(steps, slices));
    slices = static_cast<int>(block_count(steps, steps_a_slice));
    packed_bytes = static_cast<std::size_t>(steps) * kChunks * 4 * run * column_tiles * 8 * sizeof(std::uint16_t);
    partial_bytes = slices == 1 ? 0 : sizeof(float) * static_cast<std::size_t>(slices * rows * layer.out_features);
  }
};

template <typename T, int kRun, int kColumnTiles>
void launch_kernel(const WarpgroupTask<T>& task, const Cut& cut, cudaStream_t stream) {
  constexpr std::uint32_t kShared = SharedLayout::bytes(kStageChunks * 4 * kRun * kColumnTiles * 8 * 2);
  const auto kernel = warpgroup_kernel<T, kRun, kColumnTiles>;
  QSHARD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared));
  const dim3 grid(static_cast<unsigned>(cut.tiles), static_cast<unsigned>(cut.slices));
  kernel<<<grid, kThreads, kShared, stream>>>(task);
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

template <typename T, int kRun>
void launch_columns(const WarpgroupTask<T>& task, const Cut& cut, cudaStream_t stream) {
  switch (cut.column_tiles) {
    case 2:
      return launch_kernel<T, kRun, 2>(task, cut, stream);
    case 4:
      return launch_kernel<T, kRun, 4>(task, cut, stream);
    default:
      return launch_kernel<T, kRun, 8>(task, cut, stream);
  }
}

template <typename T>
void launch(const Linear4bit& layer, const void* x, std::int64_t x_stride, std::int64_t rows, void* y,
            std::int64_t y_stride, void* workspace, cudaStream_t stream) {
  const Cut cut(layer, rows);
  auto* packed = static_cast<uint4*>(workspace);
  const auto pack_count = static_cast<std::int64_t>(cut.packed_bytes / sizeof(uint4));
  pack_kernel<T><<<static_cast<unsigned>(block_count(pack_count, kThreads)), kThreads, 0, stream>>>(
      static_cast<const T*>(x), x_stride, static_cast<int>(rows), static_cast<int>(layer.in_features), cut.run,
      8 * cut.column_tiles, pack_count, packed);
  QSHARD_CUDA_CHECK(cudaGetLastError());
  float* partials =
      cut.slices == 1 ? nullptr : reinterpret_cast<float*>(static_cast<std::byte*>(workspace) + cut.packed_bytes);
  const WarpgroupTask<T> task{layer.weight.codes,
                              BlockScales(layer.weight),
                              CodebookValues(layer.weight.quant_type),
                              std::countr_zero(static_cast<unsigned>(layer.weight.blocksize)),
                              static_cast<int>(layer.in_features),
                              layer.out_features,
                              reinterpret_cast<const T*>(packed),
                              static_cast<int>(rows),
                              static_cast<T*>(y),
                              y_stride,
                              partials,
                              cut.steps,
                              cut.steps_a_slice};
  if (cut.run == 16) {
    launch_columns<T, 16>(task, cut, stream);
  } else {
    launch_columns<T, 8>(task, cut, stream);
  }
  if (cut.slices == 1) return;
  const auto add_blocks = static_cast<unsigned>(block_count(rows * layer.out_features, kThreads));
  add_slices_kernel<T><<<add_blocks, kThreads, 0, stream>>>(partials, cut.slices, static_cast<int>(rows),
                                                            layer.out_features, static_cast<T*>(y), y_stride);
  QSHARD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

bool has_warpgroups() {
  int device = 0;
  int major = 0;
  QSHARD_CUDA_CHECK(cudaGetDevice(&device));
  QSHARD_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major == 9;
}

std::size_t warpgroup_workspace_bytes(const Linear4bit& layer, std::int64_t rows) {
  const Cut cut(layer, rows);
  return cut.packed_bytes + cut.partial_bytes;
}

void linear4bit_warpgroup(const Linear4bit& layer, const void* x, std::int64_t x_stride, std::int64_t rows, void* y,
                          std::int64_t y_stride, void* workspace, cudaStream_t stream) {
  if (layer.dtype == DType::bf16) {
    launch<__nv_bfloat16>(layer, x, x_stride, rows, y, y_stride, workspace, stream);
  } else {
    launch<__half>(layer, x, x_stride, rows, y, y_stride, workspace, stream);
  }
}

}  // namespace qshard::optimized
