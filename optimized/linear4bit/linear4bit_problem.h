#pragma once

#include <cstddef>
#include <cstdint>

#include "core/tensor/codebook.h"
#include "core/tensor/dtype.h"

namespace qshard::optimized {

/// Up to this many rows forward in f16 and bf16, there are kernels that never dequantize the weight.
inline constexpr std::int64_t kMostFusedRows = 64;

/// A linear layer with a frozen 4-bit weight [out_features, in_features].
struct Linear4bitShape {
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
  DType dtype = DType::bf16;  // of the activations and of the product: f32, f16 or bf16
  QuantType quant_type = QuantType::nf4;
  int blocksize = 64;
  bool nested = true;  // whether the absmax values are quantized, too

  bool operator==(const Linear4bitShape&) const = default;
};

enum class Linear4bitDirection { forward, input_gradient };

/// Multiprocessors that work beside the products has to itself.
struct OtherWork {
  int busy = 0;     // a kernel that fills the GPU once leaves them out
  int at_most = 0;  // by whatever transport: sums have the same order for every `busy` up to this
};

/// What the choice of a kernel, and the cut of its work, ask of a GPU.
struct Linear4bitDevice {
  int multiprocessors = 0;
  int shared_memory = 0;        // bytes that a thread block may ask for
  bool has_warpgroups = false;  // Hopper's matrix instructions and tensor memory accelerator
  OtherWork other{};
};

/// Asks the current device. Throws as check_cuda().
Linear4bitDevice current_linear4bit_device();

/// A product to be done: what the rows of linear4bit_kernels() decide by.
struct Linear4bitProblem {
  Linear4bitShape shape;
  std::int64_t rows = 0;
  Linear4bitDirection direction = Linear4bitDirection::forward;
  Linear4bitDevice device;
  std::size_t matmul_workspace_bytes = 0;  // of the MatmulPlans that a kernel may multiply with
  bool with_addends = false;               // whether Linear4bitAddends are wanted with it

  [[nodiscard]] bool forward() const { return direction == Linear4bitDirection::forward; }
  [[nodiscard]] std::int64_t in_width() const { return forward() ? shape.in_features : shape.out_features; }
  [[nodiscard]] std::int64_t out_width() const { return forward() ? shape.out_features : shape.in_features; }

  /// Whether the input of one can be that of the other.
  [[nodiscard]] bool shares_input_with(const Linear4bitProblem& other) const {
    return direction == other.direction && shape.dtype == other.shape.dtype && in_width() == other.in_width() &&
           rows == other.rows;
  }

  /// Whether each row of the weight begins with a block of its own.
  [[nodiscard]] bool whole_blocks() const { return shape.in_features % shape.blocksize == 0; }

  /// What every kernel that reads the packed weight while it multiplies has in common.
  [[nodiscard]] bool can_fuse() const;
};

/// Throws Error(bad_input) for a problem that no kernel takes.
void check_problem(const Linear4bitProblem& problem);

/// Rounded up, so that what follows in a workspace is aligned to 256 bytes.
constexpr std::size_t aligned_bytes(std::size_t bytes) {
  constexpr std::size_t kAlignment = 256;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace qshard::optimized
