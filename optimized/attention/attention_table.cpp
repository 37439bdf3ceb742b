#include "optimized/attention/attention_table.h"

#include <array>
#include <cstdint>

#include <fmt/format.h>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

bool aligned_to_16(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

std::string nothing_to_refuse(const AttentionShape& /*shape*/, const AttentionSizes& /*sizes*/) {
  return "";
}

std::string no_call_to_refuse(const AttentionShape& /*shape*/, const AttentionSizes& /*sizes*/,
                              const AttentionTensors& /*tensors*/) {
  return "";
}

/// What reads and writes 16 bytes at once needs; null pointers are aligned.
std::string refuses_alignment(const AttentionShape& /*shape*/, const AttentionSizes& /*sizes*/,
                              const AttentionTensors& tensors) {
  for (const void* pointer : {tensors.q, tensors.k, tensors.v, static_cast<const void*>(tensors.o), tensors.dout,
                              static_cast<const void*>(tensors.dq), static_cast<const void*>(tensors.dk),
                              static_cast<const void*>(tensors.dv)}) {
    if (!aligned_to_16(pointer)) return "a pointer is not aligned to 16 bytes";
  }
  return "";
}

std::string tensor_core_refuses(const AttentionShape& shape, const AttentionSizes& /*sizes*/) {
  if (shape.dtype == DType::f32) return "tensor cores would round float32 to 10 bits";
  if (shape.head_dim % 8 != 0) return fmt::format("head_dim {} is no multiple of 8", shape.head_dim);
  for (const std::int64_t stride : {shape.q_stride, shape.kv_stride, shape.o_stride}) {
    if (stride % 8 != 0) return fmt::format("the stride {} is no multiple of 8", stride);
  }
  return "";
}

std::string warpgroup_refuses(const AttentionShape& shape, const AttentionSizes& sizes) {
  if (shape.head_dim > 128) return fmt::format("head_dim {} is greater than 128", shape.head_dim);
  return tensor_core_refuses(shape, sizes);
}

std::string warpgroup_refuses_call(const AttentionShape& shape, const AttentionSizes& sizes,
                                   const AttentionTensors& tensors) {
  if (const int major = device_attribute(cudaDevAttrComputeCapabilityMajor); major != 9) {
    return fmt::format("the GPU has compute capability {}.x, and only 9.x has wgmma", major);
  }
  return refuses_alignment(shape, sizes, tensors);
}

constexpr auto kKernels = std::to_array<AttentionKernel>({
    {"warpgroup",
     "wgmma, on Hopper: rows of any lengths and windows, deterministic, memory linear in tokens; head_dim up to 128.",
     warpgroup_refuses, warpgroup_refuses_call, warpgroup_attention_workspace_bytes, warpgroup_attention_forward,
     warpgroup_attention_backward},
    {"tensor-core",
     "mma.sync, on every GPU from sm_80 on: rows of any lengths and windows, deterministic, memory linear in tokens. "
     "Needs 16-bit elements and rows that begin on 16 bytes.",
     tensor_core_refuses, refuses_alignment, tensor_core_attention_workspace_bytes, tensor_core_attention_forward,
     tensor_core_attention_backward},
    {"plain", "Everything else: float32, any head_dim, any alignment.", nothing_to_refuse, no_call_to_refuse,
     plain_attention_workspace_bytes, plain_attention_forward, plain_attention_backward},
});

}  // namespace

std::span<const AttentionKernel> attention_kernels() {
  return kKernels;
}

const AttentionKernel& attention_kernel(std::string_view name) {
  std::string names;
  for (const AttentionKernel& kernel : kKernels) {
    if (kernel.name == name) return kernel;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", kernel.name);
  }
  fail_input("attention has no kernel \"{}\" in this build: use one of {}", name, names);
}

const AttentionKernel& choose_attention_kernel(const AttentionShape& shape, const AttentionSizes& sizes,
                                               const AttentionTensors& tensors) {
  std::string refusals;
  for (const AttentionKernel& kernel : kKernels) {
    std::string refusal = kernel.refuses_shape(shape, sizes);
    if (refusal.empty()) refusal = kernel.refuses_call(shape, sizes, tensors);
    if (refusal.empty()) return kernel;
    refusals += fmt::format("\n  {}: {}", kernel.name, refusal);
  }
  fail_input("no kernel computes this attention:{}", refusals);
}

}  // namespace qshard::optimized
