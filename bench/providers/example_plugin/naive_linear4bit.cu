// A complete plug-in that multiplies: y = x W^T with the 4-bit weight, one warp an output row of W and up to 8 rows of
// x. It shows what naive_dequantize.cu does not need: a state that prepare makes and finish frees, a reason for every
// row that it leaves out, and the products' roundings.
//
//   nvcc -O3 -std=c++17 -arch=native -shared -Xcompiler -fPIC -I ../.. naive_linear4bit.cu -o naive_linear4bit.so
//   ./qshard bench --plugin ./naive_linear4bit.so --check
//   ./qshard bench --operation linear4bit --rows 1,8 --provider qshard,naive_linear4bit --plugin ./naive_linear4bit.so
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdlib.h>

#include "providers/qshard_provider.h"

namespace {

constexpr int kMostRows = 8;
constexpr int kWarps = 4;  // of a thread block

__constant__ float nf4[16] = {-1.0F,
                              -0.6961928009986877F,
                              -0.5250730514526367F,
                              -0.39491748809814453F,
                              -0.28444138169288635F,
                              -0.18477343022823334F,
                              -0.09105003625154495F,
                              0.0F,
                              0.07958029955625534F,
                              0.16093020141124725F,
                              0.24611230194568634F,
                              0.33791524171829224F,
                              0.44070982933044434F,
                              0.5626170039176941F,
                              0.7229568362236023F,
                              1.0F};

// What a row of the table needs at every call, worked out once.
struct State {
  unsigned blocks;
};

__device__ float absmax_of(const qshard_buffers& b, int64_t block) {
  if (b.absmax != nullptr) return b.absmax[block];
  return __fadd_rn(__fmul_rn(b.nested_map[b.absmax_codes[block]], b.nested_absmax[block / 256]), *b.offset);
}

__global__ void kernel(qshard_buffers b, int64_t n, int64_t k, int64_t rows, int64_t blocksize) {
  const int64_t output = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (output >= n) return;
  const auto* x = static_cast<const __nv_bfloat16*>(b.x);
  auto* y = static_cast<__nv_bfloat16*>(b.y);
  float sums[kMostRows] = {};
  for (int64_t column = 2 * (threadIdx.x % 32); column < k; column += 64) {
    const int64_t element = output * k + column;
    const float absmax = absmax_of(b, element / blocksize);
    const unsigned byte = b.codes[element / 2];
    // The weight that dequantize gives, so that no product is rounded in between.
    const float high = __bfloat162float(__float2bfloat16_rn(nf4[byte >> 4] * absmax));
    const float low = __bfloat162float(__float2bfloat16_rn(nf4[byte & 15] * absmax));
    for (int row = 0; row < rows; ++row) {
      sums[row] += high * __bfloat162float(x[row * k + column]) + low * __bfloat162float(x[row * k + column + 1]);
    }
  }
  for (int row = 0; row < rows; ++row) {
    for (int distance = 16; distance > 0; distance /= 2) {
      sums[row] += __shfl_xor_sync(0xFFFFFFFFU, sums[row], distance);
    }
    if (threadIdx.x % 32 == 0) y[row * n + output] = __float2bfloat16_rn(sums[row]);
  }
}

const char* unsupported(const qshard_problem* p) {
  if (p->operation != QSHARD_LINEAR4BIT) return "linear4bit only";
  if (p->dtype != QSHARD_BF16 || p->quant_type != QSHARD_NF4) return "NF4 and bf16 only";
  if (p->rows > kMostRows) return "at most 8 rows";
  return p->k % p->blocksize == 0 ? nullptr : "k is not a multiple of the block size";
}

const char* prepare(const qshard_problem* p, const qshard_buffers* /*buffers*/, int32_t /*copies*/, void* /*stream*/,
                    void** state) {
  auto* made = static_cast<State*>(malloc(sizeof(State)));
  if (made == nullptr) return "not enough memory";
  made->blocks = static_cast<unsigned>((p->n + kWarps - 1) / kWarps);
  *state = made;
  return nullptr;
}

const char* run(const qshard_problem* p, const qshard_buffers* buffers, void* stream, void* state) {
  const auto blocks = static_cast<const State*>(state)->blocks;
  kernel<<<blocks, 32 * kWarps, 0, static_cast<cudaStream_t>(stream)>>>(*buffers, p->n, p->k, p->rows, p->blocksize);
  const cudaError_t status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

void finish(void* state) {
  free(state);
}

const qshard_provider provider = {
    QSHARD_PROVIDER_ABI, "naive_linear4bit", unsupported, nullptr, prepare, run, finish, nullptr};

}  // namespace

const qshard_provider* qshard_provider_v2(void) {
  return &provider;
}
