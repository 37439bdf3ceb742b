#ifndef QSHARD_PROVIDER_H
#define QSHARD_PROVIDER_H
/* The interface between qshard_gpu_bench and a kernel that it does not know: plain C, no other header needed.
 *
 * Build a shared library that exports
 *
 *     const qshard_provider* qshard_provider_v2(void);
 *
 * and name it on the command line: `qshard bench --plugin ./my_kernel.so`. Its rows stand in the same table, on the
 * same data and under the same checks as everybody else's. example_plugin/ holds two complete ones. Before a GPU is at
 * hand, `qshard bench --plugin ./my_kernel.so --check` loads it and says what it supports, row by row. */
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QSHARD_PROVIDER_ABI 2

enum { QSHARD_DEQUANTIZE = 0, QSHARD_QUANTIZE = 1, QSHARD_LINEAR4BIT = 2, QSHARD_LINEAR4BIT_BACKWARD = 3 };
enum { QSHARD_F32 = 0, QSHARD_F16 = 1, QSHARD_BF16 = 2 };
enum { QSHARD_NF4 = 0, QSHARD_FP4 = 1 };

/* What a row of the table asks for. The weight W is [n, k], row-major; a block is `blocksize` consecutive elements. */
typedef struct qshard_problem {
  uint32_t operation;  /* QSHARD_DEQUANTIZE, ... */
  uint32_t dtype;      /* QSHARD_F32, ...: of W, x and y */
  uint32_t quant_type; /* QSHARD_NF4 or QSHARD_FP4 */
  uint32_t nested;     /* 1: absmax itself is quantized to 8 bits */
  int64_t n;
  int64_t k;
  int64_t rows;      /* of x and y; 0 for dequantize and quantize */
  int64_t blocksize; /* 32, 64, ..., 4096 */
} qshard_problem;

/* Device pointers, each aligned to 256 bytes. Inputs (in) must not be written. What an operation does not use is null.
 *
 *                  dequantize   quantize   linear4bit   linear4bit_backward
 *   weight         out          in         -            -                      [n, k], dtype
 *   codes          in           out        in           in                     [n * k / 2] bytes, high nibble first
 *   absmax         in           out        in           in                     [blocks] float; not nested
 *   absmax_codes   in           out        in           in                     [blocks] bytes; nested
 *   nested_absmax  in           out        in           in                     [ceil(blocks / 256)] float; nested
 *   nested_map     in           in         in           in                     [256] float; nested
 *   offset         in           out        in           in                     [1] float; nested
 *   x              -            -          in           out (gradient of x)    [rows, k], dtype
 *   y              -            -          out          in (gradient of y)     [rows, n], dtype
 *
 * nested: absmax[i] = nested_map[absmax_codes[i]] * nested_absmax[i / 256] + offset, both steps rounded.
 * linear4bit: y = x W^T. linear4bit_backward: gradient of x = (gradient of y) W. */
typedef struct qshard_buffers {
  void* weight;
  uint8_t* codes;
  float* absmax;
  uint8_t* absmax_codes;
  float* nested_absmax;
  const float* nested_map;
  float* offset;
  void* x;
  void* y;
  void* workspace; /* workspace_bytes(problem) bytes, contents undefined */
} qshard_buffers;

/* Functions return null for success, otherwise a message that stays valid until the next call of any function; its row
 * then ends as an error with that message, and the other rows go on. Each function may be null but run.
 *
 * For each row, in this order: unsupported; workspace_bytes; prepare once; run many times; finish once, whatever
 * happened before. All calls come from one thread. cuda_stream is a cudaStream_t, the legacy default stream; an error
 * that a kernel leaves behind asynchronously is found after the row's synchronization and ends it. */
typedef struct qshard_provider {
  uint32_t abi; /* QSHARD_PROVIDER_ABI */
  const char* name;
  /* Why this problem cannot be done (the row is then left out, with that reason); null: it can. */
  const char* (*unsupported)(const qshard_problem* problem);
  size_t (*workspace_bytes)(const qshard_problem* problem);
  /* Called once for each row before anything is checked or timed: plans, tuning, module loading. buffers: `copies`
   * entries, the sets of pointers that calls of run rotate over, which stay where they are until finish. *state is
   * null; what is put there is given to run and finish. May synchronize and use other streams. */
  const char* (*prepare)(const qshard_problem* problem, const qshard_buffers* buffers, int32_t copies,
                         void* cuda_stream, void** state);
  /* Enqueues the operation on cuda_stream and returns; no synchronization, no other stream. buffers: one of the sets
   * that prepare saw. A provider that takes longer to enqueue than the stream is held for it gets the counter
   * enqueue_limited: its time is then the host's. */
  const char* (*run)(const qshard_problem* problem, const qshard_buffers* buffers, void* cuda_stream, void* state);
  /* Called once when the row is done: frees what prepare made. The device is idle. */
  void (*finish)(void* state);
  /* linear4bit: how many times a single product x * W is rounded to dtype before it is summed; 0: never. Widens the
   * bound that results are checked against. */
  int (*product_roundings)(const qshard_problem* problem);
} qshard_provider;

#if defined(_WIN32)
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
    const qshard_provider* qshard_provider_v2(void);

#ifdef __cplusplus
}
#endif
#endif
