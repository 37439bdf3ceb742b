#include <cfloat>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "correctness/gpu/literal_kernels.h"
#include "optimized/device/cuda_check.h"

namespace qshard::test {

namespace {

constexpr int kThreads = 256;

unsigned grid_of(std::int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

__device__ std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

void wait() {
  QSHARD_CUDA_CHECK(cudaGetLastError());
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
}

/// Calls body with a null pointer of the device type of `dtype`.
template <typename Body>
void for_dtype(DType dtype, const Body& body) {
  if (dtype == DType::bf16) return body(static_cast<__nv_bfloat16*>(nullptr));
  if (dtype == DType::f16) return body(static_cast<__half*>(nullptr));
  body(static_cast<float*>(nullptr));
}

__device__ float flush(float x) {
  return fabsf(x) < FLT_MIN ? copysignf(0.0F, x) : x;
}

/// The product as mul.ftz gives it: rounded to 24 bits whatever its exponent, then flushed if that is below 2^-126. The
/// scaling by 2^64 keeps the rounding away from the smallest exponents; two floats' product is exact in double.
__device__ float multiply_flushed(float a, float b) {
  const double exact = static_cast<double>(flush(a)) * flush(b);
  const float rounded = static_cast<float>(exact * 0x1p64);
  return static_cast<float>(fabsf(rounded) < 0x1p-62F ? copysign(0.0, exact) : exact);
}

struct Thresholds {
  float nf4[15];
  float fp4[7];
  Thresholds() {
    for (int i = 0; i < 15; ++i) nf4[i] = kNf4Thresholds[i];
    for (int i = 0; i < 7; ++i) fp4[i] = kFp4Thresholds[i];
  }
};

__device__ int literal_code(float x, bool is_nf4, const Thresholds& thresholds) {
  if (is_nf4) {
    int code = 0;
    for (int i = 0; i < 15; ++i) code += x > thresholds.nf4[i] ? 1 : 0;
    return code;
  }
  const int sign = x < 0.0F ? 8 : 0;
  const float m = fabsf(x);
  if (m > thresholds.fp4[6]) return sign | 3;
  if (m > thresholds.fp4[5]) return sign | 2;
  if (m > thresholds.fp4[4]) return sign | 5;
  if (m > thresholds.fp4[3]) return sign | 4;
  if (m > thresholds.fp4[2]) return sign | 7;
  if (m > thresholds.fp4[1]) return sign | 6;
  if (m > thresholds.fp4[0]) return sign | 1;
  return sign;
}

template <typename T>
__device__ float element(const T* weight, std::int64_t i, std::int64_t elements) {
  return i < elements ? flush(static_cast<float>(weight[i])) : 0.0F;
}

template <typename T>
__global__ void wrong_codes_kernel(const T* weight, std::int64_t elements, bool is_nf4, int blocksize,
                                   const __grid_constant__ Thresholds thresholds, const std::uint8_t* codes,
                                   const float* absmax, unsigned long long* wrong) {
  const std::int64_t block = thread_index();
  const std::int64_t first = block * blocksize;
  if (first >= elements) return;
  float largest = -FLT_MAX;
  for (int i = 0; i < blocksize; ++i) largest = fmaxf(largest, fabsf(element(weight, first + i, elements)));
  float scale;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(scale) : "f"(largest));
  unsigned long long count = __float_as_uint(largest) == __float_as_uint(absmax[block]) ? 0 : 1;
  for (int i = 0; i < blocksize && first + i < elements; i += 2) {
    const int high = literal_code(multiply_flushed(element(weight, first + i, elements), scale), is_nf4, thresholds);
    const int low = literal_code(multiply_flushed(element(weight, first + i + 1, elements), scale), is_nf4, thresholds);
    if (codes[(first + i) / 2] != (high << 4 | low)) ++count;
  }
  if (count != 0) atomicAdd(wrong, count);
}

template <typename T>
__device__ T rounded(float x);
template <>
__device__ float rounded<float>(float x) {
  return x;
}
template <>
__device__ __half rounded<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __nv_bfloat16 rounded<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

struct Codebook {
  float value[16];
};

Codebook codebook_of(const std::array<float, 16>& values) {
  Codebook result{};
  for (int i = 0; i < 16; ++i) result.value[i] = values[i];
  return result;
}

__device__ int code_at(const std::uint8_t* codes, std::int64_t i) {
  return i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
}

template <typename T>
__global__ void wrong_values_kernel(const std::uint8_t* codes, const float* absmax, std::int64_t elements,
                                    const __grid_constant__ Codebook codebook, int blocksize, const T* out,
                                    unsigned long long* wrong) {
  const std::int64_t i = thread_index();
  if (i >= elements) return;
  const T expected = rounded<T>(multiply_flushed(codebook.value[code_at(codes, i)], absmax[i / blocksize]));
  // As floats, which hold every T exactly.
  const float wanted = static_cast<float>(expected);
  const float found = static_cast<float>(out[i]);
  const bool same = __float_as_uint(wanted) == __float_as_uint(found) || (isnan(wanted) && isnan(found));
  if (!same) atomicAdd(wrong, 1ULL);
}

template <typename T>
__global__ void sweep_kernel(std::int64_t elements, int blocksize, const std::uint32_t* anchors,
                             const std::uint32_t* first_patterns, T* values) {
  const std::int64_t i = thread_index();
  if (i >= elements) return;
  const std::int64_t block = i / blocksize;
  const int place = static_cast<int>(i % blocksize);
  const std::uint32_t pattern = place == 0 ? anchors[block] : first_patterns[block] + place - 1;
  memcpy(values + i, &pattern, sizeof(T));
}

__device__ std::uint64_t hash(std::uint64_t x) {
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ x >> 27) * 0x94D049BB133111EBULL;
  return x ^ x >> 31;
}

template <typename T>
__global__ void normal_kernel(std::int64_t elements, std::uint64_t seed, float scale, T* values) {
  const std::int64_t i = thread_index();
  if (i >= elements) return;
  const std::uint64_t bits = hash((i + 1) * 0x9E3779B97F4A7C15ULL + seed);
  const float radius = static_cast<float>((bits & 0xFFFFFF) + 1) / 16777217.0F;
  const float angle = static_cast<float>(bits >> 24 & 0xFFFFFF) / 16777216.0F;
  values[i] = rounded<T>(scale * sqrtf(-2.0F * logf(radius)) * cospif(2.0F * angle));
}

__global__ void decode_kernel(const std::uint8_t* codes, const float* nested_absmax, const float* map,
                              const float* offset, std::int64_t blocks, float* absmax) {
  const std::int64_t i = thread_index();
  if (i >= blocks) return;
  absmax[i] = __fadd_rn(multiply_flushed(map[codes[i]], nested_absmax[i / 256]), *offset);
}

template <typename T>
__global__ void multiply_kernel(const __grid_constant__ LiteralProduct product, const __grid_constant__ Codebook book,
                                const T* in, std::int64_t in_stride, std::int64_t columns, double* sums,
                                double* magnitudes) {
  const std::int64_t column = thread_index();
  if (column >= columns) return;
  const std::int64_t inner = product.forward ? product.in_features : product.out_features;
  double sum = 0.0;
  double magnitude = 0.0;
  for (std::int64_t k = 0; k < inner; ++k) {
    const std::int64_t i = product.forward ? column * product.in_features + k : k * product.in_features + column;
    const float centroid = book.value[code_at(product.codes, i)];
    const float absmax = product.absmax[i / product.blocksize];
    const double weight = product.round_weight ? static_cast<float>(rounded<T>(multiply_flushed(centroid, absmax)))
                                               : static_cast<double>(centroid) * absmax;
    const double term = weight * static_cast<float>(in[blockIdx.y * in_stride + k]);
    sum += term;
    magnitude += fabs(term);
  }
  sums[blockIdx.y * columns + column] = sum;
  magnitudes[blockIdx.y * columns + column] = magnitude;
}

/// A counter in device memory.
class Counter {
 public:
  Counter() {
    QSHARD_CUDA_CHECK(cudaMalloc(&value_, sizeof *value_));
    QSHARD_CUDA_CHECK(cudaMemset(value_, 0, sizeof *value_));
  }
  ~Counter() { cudaFree(value_); }
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;
  [[nodiscard]] unsigned long long* pointer() const { return value_; }
  [[nodiscard]] std::uint64_t read() const {
    wait();
    unsigned long long count = 0;
    QSHARD_CUDA_CHECK(cudaMemcpy(&count, value_, sizeof count, cudaMemcpyDeviceToHost));
    return count;
  }

 private:
  unsigned long long* value_ = nullptr;
};

}  // namespace

void fill_sweep(DType dtype, std::int64_t blocks, int blocksize, const std::uint32_t* anchors,
                const std::uint32_t* first_patterns, void* values) {
  for_dtype(dtype, [&]<typename T>(T*) {
    sweep_kernel<T><<<grid_of(blocks * blocksize), kThreads>>>(blocks * blocksize, blocksize, anchors, first_patterns,
                                                               static_cast<T*>(values));
  });
  wait();
}

void fill_normal(DType dtype, std::int64_t elements, std::uint64_t seed, float scale, void* values) {
  for_dtype(dtype, [&]<typename T>(T*) {
    normal_kernel<T><<<grid_of(elements), kThreads>>>(elements, seed, scale, static_cast<T*>(values));
  });
  wait();
}

std::uint64_t wrong_codes(const void* weight, DType dtype, std::int64_t elements, QuantType type, int blocksize,
                          const std::uint8_t* codes, const float* absmax) {
  const Counter wrong;
  for_dtype(dtype, [&]<typename T>(T*) {
    wrong_codes_kernel<T><<<grid_of((elements + blocksize - 1) / blocksize), kThreads>>>(
        static_cast<const T*>(weight), elements, type == QuantType::nf4, blocksize, Thresholds(), codes, absmax,
        wrong.pointer());
  });
  return wrong.read();
}

std::uint64_t wrong_values(const std::uint8_t* codes, const float* absmax, std::int64_t elements, QuantType type,
                           int blocksize, DType dtype, const void* out) {
  const Counter wrong;
  for_dtype(dtype, [&]<typename T>(T*) {
    wrong_values_kernel<T><<<grid_of(elements), kThreads>>>(codes, absmax, elements, codebook_of(codebook(type)),
                                                            blocksize, static_cast<const T*>(out), wrong.pointer());
  });
  return wrong.read();
}

void decode_absmax(const std::uint8_t* absmax_codes, const float* nested_absmax, const float* map, const float* offset,
                   std::int64_t blocks, float* absmax) {
  decode_kernel<<<grid_of(blocks), kThreads>>>(absmax_codes, nested_absmax, map, offset, blocks, absmax);
  wait();
}

void multiply(const LiteralProduct& product, const void* in, std::int64_t in_stride, std::int64_t rows, double* sums,
              double* magnitudes) {
  const std::int64_t columns = product.forward ? product.out_features : product.in_features;
  for_dtype(product.dtype, [&]<typename T>(T*) {
    multiply_kernel<T><<<dim3(grid_of(columns), static_cast<unsigned>(rows)), kThreads>>>(
        product, codebook_of(product.codebook), static_cast<const T*>(in), in_stride, columns, sums, magnitudes);
  });
  wait();
}

}  // namespace qshard::test
