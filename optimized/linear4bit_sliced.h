#pragma once

#include <cstdint>
#include <optional>

#include <cuda_runtime_api.h>

#include "optimized/linear4bit.h"
#include "optimized/matmul.h"

namespace qshard::optimized {

/// How a product is cut: one slice of `first_columns` columns of the output, then slices of `columns`. The first one's
/// part of the weight is dequantized before its product, that of the others beside the products before theirs.
struct Slicing {
  std::int64_t first_columns = 0;  // multiples of 256
  std::int64_t columns = 0;
  std::int64_t up_front = 0;  // elements of the weight dequantized before the first product in all, if that is more
  int multiprocessors = 0;    // that dequantize the rest beside the products; even
};

/// The slicing that was measured to pay for this product on the current device; none where dequantizing the weight
/// first and multiplying then is better, or where its sizes cannot be cut.
std::optional<Slicing> slicing_of(const Linear4bit& layer, const MatmulShape& shape);

/// linear4bit() (shape.b_transposed) or linear4bit_input_gradient() for a product cut so: while slice i is multiplied,
/// a few multiprocessors dequantize the slices after it. Each element of the output is one product's, never added up
/// from several. The arguments are checked by linear4bit(); workspace as there; f16 or bf16. Fewer
/// than SideStream::kMarks slices after the first.
void multiply_sliced(MatmulPlans& plans, const Linear4bit& layer, const MatmulShape& shape, const Slicing& slicing,
                     const void* in, void* out, void* workspace, cudaStream_t stream);

}  // namespace qshard::optimized
