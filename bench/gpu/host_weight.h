#pragma once

#include <array>
#include <optional>

#include "bench/providers/qshard_provider.h"
#include "core/tensor/tensor.h"
#include "core/tensor/weight4bit.h"

namespace qshard::bench {

/// A random weight with what the reference makes of it: the data that rows run on and are checked against. Parts are
/// computed when first asked for and kept, so that all rows of one weight share them.
class HostWeight {
 public:
  explicit HostWeight(const qshard_problem& problem);

  /// True where `problem` asks for this weight: same sizes, dtype, type and block size; nested or not.
  [[nodiscard]] bool fits(const qshard_problem& problem) const;

  const Tensor& dense();                     // [n, k] before quantization
  const Weight4bit& quantized(bool nested);  // by reference::quantize
  const Tensor& dequantized(bool nested);    // by reference::dequantize of quantized(nested)

  /// The nested form with a given offset, as somebody else's mean of absmax may differ in its last bits.
  const Weight4bit& nested_with_offset(float offset);

 private:
  qshard_problem problem_;
  std::optional<Tensor> dense_;
  std::array<std::optional<Weight4bit>, 2> quantized_;
  std::array<std::optional<Tensor>, 2> dequantized_;
  std::optional<Weight4bit> with_offset_;
};

/// Largest difference that a correct sum of `absmax` in any order can have from their mean: every value is positive, so
/// at most (blocks + 1) roundings of relative size 2^-24 each. Returns the mean (in double) and that bound.
struct MeanBound {
  double mean;
  double bound;
};
MeanBound mean_of_absmax(const Weight4bit& plain);

}  // namespace qshard::bench
