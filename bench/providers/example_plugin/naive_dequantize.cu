// A complete plug-in: one naive dequantize kernel in the table of qshard_gpu_bench. Nothing but the interface is
// included.
//
//   nvcc -O3 -std=c++17 -arch=native -shared -Xcompiler -fPIC -I ../.. naive_dequantize.cu -o naive_dequantize.so
//   ./qshard bench --operation dequantize --provider qshard --plugin ./naive_dequantize.so
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "providers/qshard_provider.h"

namespace {

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

__global__ void kernel(qshard_buffers b, int64_t elements, int64_t blocksize) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= elements) return;
  const int64_t block = i / blocksize;
  const float absmax =
      b.absmax != nullptr
          ? b.absmax[block]
          : __fadd_rn(__fmul_rn(b.nested_map[b.absmax_codes[block]], b.nested_absmax[block / 256]), *b.offset);
  const unsigned byte = b.codes[i / 2];
  const unsigned code = i % 2 == 0 ? byte >> 4 : byte & 15;
  static_cast<__nv_bfloat16*>(b.weight)[i] = __float2bfloat16_rn(nf4[code] * absmax);
}

const char* unsupported(const qshard_problem* p) {
  if (p->operation != QSHARD_DEQUANTIZE) return "dequantize only";
  return p->dtype == QSHARD_BF16 && p->quant_type == QSHARD_NF4 ? nullptr : "NF4 to bf16 only";
}

const char* run(const qshard_problem* p, const qshard_buffers* buffers, void* stream, void* /*state*/) {
  const int64_t elements = p->n * p->k;
  const auto blocks = static_cast<unsigned>((elements + 255) / 256);
  kernel<<<blocks, 256, 0, static_cast<cudaStream_t>(stream)>>>(*buffers, elements, p->blocksize);
  const cudaError_t status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

const qshard_provider provider = {
    QSHARD_PROVIDER_ABI, "naive_dequantize", unsupported, nullptr, nullptr, run, nullptr, nullptr};

}  // namespace

const qshard_provider* qshard_provider_v2(void) {
  return &provider;
}
