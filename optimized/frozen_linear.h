#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "core/tensor/dtype.h"
#include "optimized/device_weight4bit.h"
#include "optimized/linear4bit/linear4bit_addends.h"
#include "optimized/step_resources.h"

namespace qshard::optimized {

/// The frozen weight of a linear layer, [out, in]: in 4 bits, or dense in the activations' dtype.
struct FrozenWeight {
  std::int64_t out = 0;
  std::int64_t in = 0;
  DType dtype = DType::bf16;  // of the activations
  bool in_4bit = false;
  DeviceWeight4bit quantized;   // where in_4bit; its pointers are null in a dry run
  const void* dense = nullptr;  // otherwise
};

/// Rows of activations: `stride` elements from one row to the next.
struct ConstRows {
  const void* data = nullptr;
  std::int64_t stride = 0;
};
struct MutableRows {
  void* data = nullptr;
  std::int64_t stride = 0;
};

/// y = x W^T over `rows` rows, x [rows, in], y [rows, out]; workspace comes from the arena for the length of the call.
void frozen_linear(const StepResources& resources, const FrozenWeight& weight, std::int64_t rows, ConstRows x,
                   MutableRows y);

/// The same for weights that share the input x: one launch where the plans' kernel takes several products.
void frozen_linears(const StepResources& resources, std::span<const FrozenWeight* const> weights, std::int64_t rows,
                    ConstRows x, std::span<const MutableRows> ys);

/// The gradient of the input: dx = dy W.
void frozen_linear_input_gradient(const StepResources& resources, const FrozenWeight& weight, std::int64_t rows,
                                  ConstRows dy, MutableRows dx);

/// The same with addends in one product (Linear4bitPlan). Returns whether it was done: it is not where the weight is
/// dense, where the plan's kernel does not take the addends, and in a dry run, which takes the workspace alone.
[[nodiscard]] bool frozen_linear_with(const StepResources& resources, const FrozenWeight& weight, std::int64_t rows,
                                      ConstRows x, MutableRows y, const Linear4bitAddends& addends);
[[nodiscard]] bool frozen_linear_input_gradient_with(const StepResources& resources, const FrozenWeight& weight,
                                                     std::int64_t rows, ConstRows dy, MutableRows dx,
                                                     const Linear4bitAddends& addends);

}  // namespace qshard::optimized
