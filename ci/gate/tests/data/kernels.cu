// Compiled with and without -DCANDIDATE for the recorded cuobjdump output beside it.
namespace {
__global__ void scale(float* y) {
  y[threadIdx.x] *= 2;
}
}  // namespace
template <int Block>
__global__ void reduce(const float* x, float* y) {
  __shared__ float sums[Block];
  sums[threadIdx.x] = x[blockIdx.x * Block + threadIdx.x];
  __syncthreads();
  for (int half = Block / 2; half; half >>= 1) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (!threadIdx.x) y[blockIdx.x] = sums[0];
}
template __global__ void reduce<64>(const float*, float*);
__global__ void gather(const float* x, float* y, int index) {
  float kept[16] = {};
  for (int i = 0; i < 16; ++i) {
#ifdef CANDIDATE
    kept[i * index & 15] = x[i * 32 + threadIdx.x];
#else
    kept[i] = x[i * 32 + threadIdx.x];
#endif
  }
  y[threadIdx.x] = kept[0] + kept[15];
}
__global__ void walk(float* y, int n) {
#ifdef CANDIDATE
  y[0] = 1;
#endif
#pragma unroll 1
  for (int i = 0; i < n; ++i) y[i * i] += 3 * y[i];
}
#ifdef CANDIDATE
__global__ void added(float* y) {
  y[0] = 1;
}
#else
__global__ void removed(float* y) {
  y[0] = 1;
}
#endif
void start(float* y) {
  scale<<<1, 1>>>(y);
}
