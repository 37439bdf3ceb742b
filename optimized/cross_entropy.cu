#include <algorithm>

#include "core/training/token_batch.h"
#include "optimized/cross_entropy.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/early_launch.h"
#include "optimized/element_vector.cuh"
#include "optimized/exponential.cuh"
#include "optimized/ptx/programmatic_launch.cuh"
#include "optimized/team_reduce.cuh"

namespace qshard::optimized {

namespace {

constexpr int kThreads = 1024;
constexpr int kInFlight = 4;                                 // loads that a thread has on the way at once
constexpr std::size_t kStaticShared = std::size_t{1} << 10;  // more than the reductions take

struct CrossEntropyTask {
  std::int64_t vocab;
  std::int64_t stride;
  int held;  // vectors of a row that are kept in shared memory between its two passes
  const std::int32_t* targets;
  const float* gradient_scale;
  float* losses;
};

/// The greatest of a row's logits seen so far, and the sum of exp(logit - greatest).
template <typename T>
struct RunningSum {
  float greatest = -INFINITY;
  float sum = 0.0F;

  /// What is taken off before exp: not -infinity, which would give NaN for logits of -infinity.
  [[nodiscard]] __device__ float base() const { return greatest == -INFINITY ? 0.0F : greatest; }

  __device__ void raise(float candidate) {
    if (!(candidate > greatest)) return;
    sum *= exponential<T>(greatest - candidate);
    greatest = candidate;
  }

  template <int kCount>
  __device__ void add(const float (&logits)[kCount]) {
    float largest = logits[0];
#pragma unroll
    for (int e = 1; e < kCount; ++e) largest = fmaxf(largest, logits[e]);
    raise(largest);
    const float subtrahend = base();
#pragma unroll
    for (int e = 0; e < kCount; ++e) sum += exponential<T>(logits[e] - subtrahend);
  }
};

/// visit(i) for this thread's share of the vectors below `vectors`, several of them before the first is waited for.
template <typename Load, typename Visit>
__device__ __forceinline__ void for_own_vectors(int vectors, const Load& load, const Visit& visit) {
  int i = static_cast<int>(threadIdx.x);
  for (; i + (kInFlight - 1) * kThreads < vectors; i += kInFlight * kThreads) {
    decltype(load(0)) loaded[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) loaded[k] = load(i + k * kThreads);
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) visit(i + k * kThreads, loaded[k]);
  }
  for (; i < vectors; i += kThreads) visit(i, load(i));
}

template <typename T, int kCount>
__device__ void fill_row(T* row, int vectors, float value) {
  float values[kCount];
#pragma unroll
  for (int e = 0; e < kCount; ++e) values[e] = value;
  for (int i = static_cast<int>(threadIdx.x); i < vectors; i += kThreads) {
    vector_at<kCount>(row, i) = rounded<T>(values);
  }
}

template <typename T, int kCount, bool kGradient>
__global__ void __launch_bounds__(kThreads) cross_entropy_kernel(const CrossEntropyTask task, T* logits) {
  begin_early_kernel();
  extern __shared__ uint4 shared[];
  using Vector = ElementVector<T, kCount>;
  auto* held = reinterpret_cast<Vector*>(shared);
  T* row = logits + blockIdx.x * task.stride;
  const int vectors = static_cast<int>(task.vocab / kCount);
  const std::int32_t target = task.targets[blockIdx.x];
  if (target < 0 || target >= task.vocab) {
    const float result = target == kIgnoredLabel ? 0.0F : NAN;
    if (threadIdx.x == 0) task.losses[blockIdx.x] = result;
    if constexpr (kGradient) fill_row<T, kCount>(row, vectors, result);
    return;
  }
  const float target_logit = to_float(row[target]);  // before anything is written

  RunningSum<T> own;
  const auto from_row = [&](int i) { return vector_at<kCount>(row, i); };
  for_own_vectors(vectors, from_row, [&](int i, const Vector& vector) {
    if (kGradient && i < task.held) held[i] = vector;
    float values[kCount];
    to_floats(vector, values);
    own.add(values);
  });
  const float greatest = team_reduce<kThreads>(own.greatest, Maximum{});
  own.raise(greatest);
  const float total = team_reduce<kThreads>(own.sum, Sum{});
  if (threadIdx.x == 0) task.losses[blockIdx.x] = logf(total) - (target_logit - greatest);

  if constexpr (kGradient) {
    const float scale = task.gradient_scale[0];
    const float inverse = 1.0F / total;
    const auto from_nearest = [&](int i) {
      if (i < task.held) return held[i];
      return vector_at<kCount>(row, i);
    };
    for_own_vectors(vectors, from_nearest, [&](int i, const Vector& vector) {
      float values[kCount];
      to_floats(vector, values);
#pragma unroll
      for (int e = 0; e < kCount; ++e) {
        const float onehot = i * kCount + e == target ? 1.0F : 0.0F;
        values[e] = (exponential<T>(values[e] - greatest) * inverse - onehot) * scale;
      }
      vector_at<kCount>(row, i) = rounded<T>(values);
    });
  }
}

/// Bytes of a row that one thread block can keep in shared memory.
std::size_t held_bytes(std::size_t row_bytes) {
  const auto most = static_cast<std::size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  return std::min(row_bytes, (most - kStaticShared) / kAccessBytes * kAccessBytes);
}

template <typename T, int kCount, bool kGradient>
void launch(CrossEntropyTask task, std::int64_t rows, T* logits, cudaStream_t stream) {
  const auto kernel = cross_entropy_kernel<T, kCount, kGradient>;
  std::size_t shared_bytes = 0;
  if (kGradient) {
    shared_bytes = held_bytes(static_cast<std::size_t>(task.vocab) * sizeof(T));
    QSHARD_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  }
  task.held = static_cast<int>(shared_bytes / sizeof(ElementVector<T, kCount>));
  launch_early(kernel, dim3(static_cast<unsigned>(rows)), kThreads, shared_bytes, stream, task, logits);
}

}  // namespace

void cross_entropy(std::int64_t rows, std::int64_t vocab, std::int64_t stride, DType dtype, void* logits,
                   const std::int32_t* targets, const float* gradient_scale, bool gradient, float* losses,
                   cudaStream_t stream) {
  check_floating(dtype, "the dtype of the logits");
  check_at_least(rows, 0, "the number of rows of logits");
  check_at_least(vocab, 1, "the vocabulary");
  check_at_most(vocab, INT32_MAX, "the vocabulary");
  check_at_least(stride, vocab, "the stride of the logits");
  if (rows == 0) return;
  check_pointer(logits, size_of(dtype), "the logits");
  check_pointer(targets, sizeof(*targets), "the targets of the cross-entropy");
  check_pointer(losses, sizeof(*losses), "the losses");
  if (gradient) check_pointer(gradient_scale, sizeof(*gradient_scale), "the scale of the logits' gradient");
  with_vectors(dtype, fits_wide_access(dtype, {logits}, {vocab, stride}), [&]<typename T, int kCount>() {
    const CrossEntropyTask task{vocab, stride, 0, targets, gradient_scale, losses};
    if (gradient) {
      launch<T, kCount, true>(task, rows, static_cast<T*>(logits), stream);
    } else {
      launch<T, kCount, false>(task, rows, static_cast<T*>(logits), stream);
    }
  });
}

}  // namespace qshard::optimized
