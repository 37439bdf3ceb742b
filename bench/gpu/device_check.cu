#include <algorithm>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "bench/gpu/device_check.h"
#include "optimized/device/cuda_check.h"

namespace qshard::bench {
namespace {

constexpr int kThreads = 256;
constexpr int kGrid = 4096;  // grid-stride loops: any size
using Count = unsigned long long;

__device__ std::uint64_t mix(std::uint64_t value) {
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ value >> 27) * 0x94D049BB133111EBULL;
  return value ^ value >> 31;
}

__device__ std::size_t first_index() {
  return blockIdx.x * static_cast<std::size_t>(blockDim.x) + threadIdx.x;
}

__device__ std::size_t stride() {
  return gridDim.x * static_cast<std::size_t>(blockDim.x);
}

__device__ int differing_bytes(std::uint64_t a, std::uint64_t b) {
  int count = 0;
  for (int byte = 0; byte < 8; ++byte) count += (a >> 8 * byte & 0xFF) != (b >> 8 * byte & 0xFF) ? 1 : 0;
  return count;
}

__global__ void difference_kernel(const std::uint8_t* a, const std::uint8_t* b, std::size_t bytes, Count* total) {
  const std::size_t words = bytes / 8;
  const auto* a_words = reinterpret_cast<const std::uint64_t*>(a);
  const auto* b_words = reinterpret_cast<const std::uint64_t*>(b);
  Count count = 0;
  for (std::size_t i = first_index(); i < words; i += stride()) {
    if (a_words[i] != b_words[i]) count += differing_bytes(a_words[i], b_words[i]);
  }
  const std::size_t tail = words * 8 + first_index();
  if (tail < bytes && a[tail] != b[tail]) ++count;
  if (count > 0) atomicAdd(total, count);
}

__global__ void hash_kernel(const std::uint8_t* data, std::size_t bytes, Count* total) {
  const std::size_t words = bytes / 8;
  const auto* values = reinterpret_cast<const std::uint64_t*>(data);
  Count sum = 0;
  for (std::size_t i = first_index(); i < words; i += stride()) sum += mix(values[i] + mix(i + 1));
  const std::size_t tail = words * 8 + first_index();
  if (tail < bytes) sum += mix(data[tail] + mix(tail + 1));
  atomicAdd(total, sum);
}

__device__ double to_double(float value) {
  return value;
}
__device__ double to_double(__half value) {
  return __half2float(value);
}
__device__ double to_double(__nv_bfloat16 value) {
  return __bfloat162float(value);
}

template <typename T>
__global__ void poison_kernel(const T* output, std::size_t elements, Count* poisoned) {
  Count count = 0;
  for (std::size_t i = first_index(); i < elements; i += stride()) {
    if (isnan(to_double(output[i]))) ++count;
  }
  if (count > 0) atomicAdd(poisoned, count);
}

/// Where the outputs and the two operands of a linear layer lie: output [rows, columns], one side of the product
/// [rows, length], the weight [n, k] read along or across its rows.
template <typename T>
struct Product {
  const T* output;
  const T* input;
  const T* weight;
  std::size_t columns;
  std::size_t length;
  std::size_t weight_column_stride;  // from one output column to the next
  std::size_t weight_term_stride;    // from one term of the sum to the next
  double output_rounding;
  double sum_rounding;
  double product_rounding;
};

struct DeviceResult {
  Count outside;
  Count poisoned;
  Count worst_bits;  // of a non-negative double, whose order is that of its bits
};

template <typename T>
__device__ void judge(const Product<T>& product, std::size_t index, double sum, double magnitude,
                      DeviceResult* result) {
  const double actual = to_double(product.output[index]);
  const double bound =
      magnitude * (product.sum_rounding + product.product_rounding) + fabs(sum) * product.output_rounding;
  const double difference = fabs(actual - sum);
  if (!(difference <= bound)) atomicAdd(&result->outside, Count{1});
  if (bound > 0 && difference >= 0) {
    atomicMax(&result->worst_bits, static_cast<Count>(__double_as_longlong(difference / bound)));
  }
}

/// One warp for 32 neighbouring outputs of a row (their number may be cut by the row's end): along the weight's rows
/// the lanes split each sum, across them each lane has its own, so that reads are coalesced either way.
template <typename T>
__global__ void product_kernel(Product<T> product, std::size_t groups, std::size_t group_step, std::size_t total_groups,
                               DeviceResult* result) {
  const std::size_t warp = first_index() / 32;
  const unsigned lane = threadIdx.x % 32;
  const std::size_t groups_per_row = (product.columns + 31) / 32;
  for (std::size_t item = warp; item < groups; item += stride() / 32) {
    const std::size_t group = item * group_step % total_groups;
    const std::size_t row = group / groups_per_row;
    const std::size_t first = group % groups_per_row * 32;
    const std::size_t count = min(static_cast<std::size_t>(32), product.columns - first);
    const T* input = product.input + row * product.length;
    double my_sum = 0;
    double my_magnitude = 0;
    if (product.weight_term_stride == 1) {
      for (std::size_t c = 0; c < count; ++c) {
        const T* weight = product.weight + (first + c) * product.weight_column_stride;
        double sum = 0;
        double magnitude = 0;
        for (std::size_t i = lane; i < product.length; i += 32) {
          const double term = to_double(input[i]) * to_double(weight[i]);
          sum += term;
          magnitude += fabs(term);
        }
        for (int offset = 16; offset > 0; offset /= 2) {
          sum += __shfl_xor_sync(0xFFFFFFFFU, sum, offset);
          magnitude += __shfl_xor_sync(0xFFFFFFFFU, magnitude, offset);
        }
        if (lane == c) {
          my_sum = sum;
          my_magnitude = magnitude;
        }
      }
    } else if (lane < count) {
      for (std::size_t i = 0; i < product.length; ++i) {
        const double term =
            to_double(input[i]) * to_double(product.weight[i * product.weight_term_stride + first + lane]);
        my_sum += term;
        my_magnitude += fabs(term);
      }
    }
    if (lane < count) judge(product, row * product.columns + first + lane, my_sum, my_magnitude, result);
  }
}

/// A zeroed result in device memory, read back when asked for.
template <typename T>
class DeviceValue {
 public:
  DeviceValue() {
    QSHARD_CUDA_CHECK(cudaMalloc(&data_, sizeof(T)));
    QSHARD_CUDA_CHECK(cudaMemset(data_, 0, sizeof(T)));
  }
  ~DeviceValue() { cudaFree(data_); }
  DeviceValue(const DeviceValue&) = delete;
  DeviceValue& operator=(const DeviceValue&) = delete;
  [[nodiscard]] T* pointer() const { return data_; }
  [[nodiscard]] T read() const {
    T value;
    QSHARD_CUDA_CHECK(cudaGetLastError());
    QSHARD_CUDA_CHECK(cudaMemcpy(&value, data_, sizeof(T), cudaMemcpyDeviceToHost));
    return value;
  }

 private:
  T* data_ = nullptr;
};

template <typename T>
ProductCheck check(const qshard_problem& problem, const qshard_buffers& buffers, const void* dense, int roundings,
                   double unit) {
  const bool forward = problem.operation == QSHARD_LINEAR4BIT;
  const auto n = static_cast<std::size_t>(problem.n);
  const auto k = static_cast<std::size_t>(problem.k);
  const auto rows = static_cast<std::size_t>(problem.rows);
  Product<T> product{};
  product.output = static_cast<const T*>(forward ? buffers.y : buffers.x);
  product.input = static_cast<const T*>(forward ? buffers.x : buffers.y);
  product.weight = static_cast<const T*>(dense);
  product.columns = forward ? n : k;
  product.length = forward ? k : n;
  product.weight_column_stride = forward ? k : 1;
  product.weight_term_stride = forward ? 1 : k;
  product.output_rounding = unit;
  product.sum_rounding = static_cast<double>(product.length + 1) * 0x1p-23;
  product.product_rounding = roundings * unit;

  const std::size_t total_groups = rows * ((product.columns + 31) / 32);
  const std::size_t products_per_group = 32 * product.length;
  const bool all = total_groups <= (std::size_t{1} << 34) / products_per_group;
  const std::size_t groups = all ? total_groups : (std::size_t{1} << 33) / products_per_group;
  // A step of about 0.618 of the range, odd, spreads any number of groups evenly over it.
  const std::size_t step = all ? 1 : static_cast<std::size_t>(0.6180339887 * static_cast<double>(total_groups)) | 1;

  const DeviceValue<DeviceResult> result;
  poison_kernel<<<kGrid, kThreads>>>(product.output, rows * product.columns, &result.pointer()->poisoned);
  product_kernel<<<kGrid, kThreads>>>(product, groups, step, total_groups, result.pointer());
  const DeviceResult read = result.read();
  ProductCheck outcome;
  outcome.checked = std::min(groups * 32, rows * product.columns);
  outcome.outside = read.outside;
  outcome.poisoned = read.poisoned;
  static_assert(sizeof(double) == sizeof(Count));
  __builtin_memcpy(&outcome.worst, &read.worst_bits, sizeof(double));
  return outcome;
}

__global__ void random_kernel(__nv_bfloat16* data, std::size_t elements, std::uint64_t seed) {
  for (std::size_t i = first_index(); i < elements; i += stride()) {
    const auto bits = static_cast<std::uint32_t>(mix(seed * 0x9E3779B97F4A7C15ULL + i + 1) >> 40);
    data[i] = __float2bfloat16_rn(static_cast<float>(bits) * 0x1p-23F - 1.0F);
  }
}

}  // namespace

std::uint64_t count_differences(const void* a, const void* b, std::size_t bytes) {
  const DeviceValue<Count> total;
  difference_kernel<<<kGrid, kThreads>>>(static_cast<const std::uint8_t*>(a), static_cast<const std::uint8_t*>(b),
                                         bytes, total.pointer());
  return total.read();
}

std::uint64_t hash_of(const void* data, std::size_t bytes) {
  const DeviceValue<Count> total;
  hash_kernel<<<kGrid, kThreads>>>(static_cast<const std::uint8_t*>(data), bytes, total.pointer());
  return total.read();
}

ProductCheck check_product(const qshard_problem& problem, const qshard_buffers& buffers, const void* dense,
                           int roundings) {
  if (problem.dtype == QSHARD_F32) return check<float>(problem, buffers, dense, roundings, 0x1p-24);
  if (problem.dtype == QSHARD_F16) return check<__half>(problem, buffers, dense, roundings, 0x1p-11);
  return check<__nv_bfloat16>(problem, buffers, dense, roundings, 0x1p-8);
}

void fill_random_bf16(void* data, std::size_t elements, std::uint64_t seed) {
  random_kernel<<<kGrid, kThreads>>>(static_cast<__nv_bfloat16*>(data), elements, seed);
  QSHARD_CUDA_CHECK(cudaGetLastError());
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
}

}  // namespace qshard::bench
