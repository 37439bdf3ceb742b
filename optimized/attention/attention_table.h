#pragma once

#include <span>
#include <string>
#include <string_view>

#include "optimized/attention/attention.h"

// Who computes attention: the table that attention_forward() and attention_backward() choose from.
namespace qshard::optimized {

/// What the host knows of the rows.
struct AttentionSizes {
  std::int64_t tokens = 0;
  std::int64_t rows = 0;
  std::int64_t longest = 0;

  /// All rows have the same length.
  [[nodiscard]] bool dense() const { return tokens == rows * longest; }

  bool operator==(const AttentionSizes&) const = default;
};

/// The tensors of one call; a forward pass has neither dout nor gradients.
struct AttentionTensors {
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  void* o = nullptr;  // only read by the backward pass, as is lse
  float* lse = nullptr;
  const void* dout = nullptr;
  void* dq = nullptr;
  void* dk = nullptr;
  void* dv = nullptr;
};

/// One row of the table.
struct AttentionKernel {
  std::string_view name;
  std::string_view reason;  // why it stands where it stands

  /// Why this shape cannot be done; empty: it can. The same on every machine, so that memory can be planned without a
  /// GPU.
  std::string (*refuses_shape)(const AttentionShape& shape, const AttentionSizes& sizes);

  /// Why the current device or these pointers cannot be used; empty: they can.
  std::string (*refuses_call)(const AttentionShape& shape, const AttentionSizes& sizes,
                              const AttentionTensors& tensors);

  std::size_t (*workspace_bytes)(const AttentionShape& shape, const AttentionSizes& sizes);
  void (*forward)(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors, void* workspace,
                  cudaStream_t stream);
  void (*backward)(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors, void* workspace,
                   cudaStream_t stream);
};

/// In the order of choice: the first that does not refuse computes.
std::span<const AttentionKernel> attention_kernels();

/// The row of that name. Throws Error(bad_input) that names those there are.
const AttentionKernel& attention_kernel(std::string_view name);

/// The row that computes this call.
const AttentionKernel& choose_attention_kernel(const AttentionShape& shape, const AttentionSizes& sizes,
                                               const AttentionTensors& tensors);

/// Throws Error(bad_input) unless shape, sizes and, where there are any, pointers make sense. backward: the gradients'
/// pointers are needed, too.
void check_attention_shape(const AttentionShape& shape, const AttentionSizes& sizes);
void check_attention_tensors(const AttentionShape& shape, const AttentionTensors& tensors, bool backward);

// The rows' functions.
std::size_t warpgroup_attention_workspace_bytes(const AttentionShape& shape, const AttentionSizes& sizes);
void warpgroup_attention_forward(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors,
                                 void* workspace, cudaStream_t stream);
void warpgroup_attention_backward(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors,
                                  void* workspace, cudaStream_t stream);
std::size_t tensor_core_attention_workspace_bytes(const AttentionShape& shape, const AttentionSizes& sizes);
void tensor_core_attention_forward(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors,
                                   void* workspace, cudaStream_t stream);
void tensor_core_attention_backward(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors,
                                    void* workspace, cudaStream_t stream);
std::size_t plain_attention_workspace_bytes(const AttentionShape& shape, const AttentionSizes& sizes);
void plain_attention_forward(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors,
                             void* workspace, cudaStream_t stream);
void plain_attention_backward(const AttentionShape& shape, const TokenRows& rows, const AttentionTensors& tensors,
                              void* workspace, cudaStream_t stream);

}  // namespace qshard::optimized
