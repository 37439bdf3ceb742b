#pragma once

#include <cstdint>

#include "core/tensor/codebook.h"
#include "core/tensor/dtype.h"

namespace qshard::optimized {

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

/// What the choice of a kernel asks of a GPU.
struct Linear4bitDevice {
  int multiprocessors = 0;
  int shared_memory = 0;    // bytes that a thread block may ask for
  bool warpgroups = false;  // Hopper's matrix instructions and tensor memory accelerator, in the GPU and in this build
};

/// A product to be done: what a kernel's row of the table decides by.
struct Linear4bitProblem {
  Linear4bitShape shape;
  std::int64_t rows = 0;
  Linear4bitDirection direction = Linear4bitDirection::forward;
  Linear4bitDevice device;

  [[nodiscard]] bool forward() const { return direction == Linear4bitDirection::forward; }
  [[nodiscard]] std::int64_t in_width() const { return forward() ? shape.in_features : shape.out_features; }
  [[nodiscard]] std::int64_t out_width() const { return forward() ? shape.out_features : shape.in_features; }
};

}  // namespace qshard::optimized
