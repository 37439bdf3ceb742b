/* A plug-in without kernels, to test how plug-ins are loaded: PLUGIN_ABI, PLUGIN_NAME and PLUGIN_ENTRY come from the
 * build. */
#include <stddef.h>

#include "bench/providers/qshard_provider.h"

static const char* unsupported(const qshard_problem* p) {
  return p->operation == QSHARD_DEQUANTIZE ? NULL : "dequantize only";
}

static size_t workspace_bytes(const qshard_problem* p) {
  return (size_t)p->n;
}

static const char* run(const qshard_problem* p, const qshard_buffers* buffers, void* stream, void* state) {
  (void)p, (void)buffers, (void)stream, (void)state;
  return "has no kernel";
}

static const qshard_provider provider = {
    .abi = PLUGIN_ABI, .name = PLUGIN_NAME, .unsupported = unsupported, .workspace_bytes = workspace_bytes, .run = run};

__attribute__((visibility("default"))) const qshard_provider* PLUGIN_ENTRY(void) {
  return &provider;
}
