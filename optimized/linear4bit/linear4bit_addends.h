#pragma once

#include <cstdint>

namespace qshard::optimized {

/// The part of an adapter in a product with a 4-bit weight; names as in optimized/lora.h:
///
///   forward         scale * h B^T        factor: h [rows, rank]    matrix: B [out_features, rank]
///   input_gradient  scale * mask(g A)    factor: g [rows, rank]    matrix: A [rank, in_features]
///
/// f16 or bf16 as the product's input; the matrix is contiguous.
struct Linear4bitAdapter {
  std::int64_t rank = 0;  // 0: no adapter
  const void* factor = nullptr;
  std::int64_t factor_stride = 0;  // elements from one row to the next
  const void* matrix = nullptr;
  double scale = 1;                    // rounded to float
  const std::uint8_t* mask = nullptr;  // as dropout_masks() writes it, of in_features; null: everything is kept
};

/// What is added to a product before it is stored.
struct Linear4bitAddends {
  Linear4bitAdapter adapter;
  bool add_to_out = false;  // out = round(out + round(product and adapter)), with the bits of add()

  [[nodiscard]] bool empty() const { return adapter.rank == 0 && !add_to_out; }
};

}  // namespace qshard::optimized
