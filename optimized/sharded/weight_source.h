#pragma once

#include <memory>
#include <optional>
#include <string>

#include <cuda_runtime_api.h>

#include "core/formats/hf_checkpoint.h"
#include "core/tensor/tensor.h"
#include "core/tensor/weight4bit.h"

namespace qshard::optimized {

/// Where the frozen weights come from, one tensor at a time.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  /// The form of a linear layer's weight that is in 4 bits already; empty where it is not.
  [[nodiscard]] virtual std::optional<Weight4bitInfo> prequantized(const std::string& name) const = 0;
  /// Such a weight.
  [[nodiscard]] virtual Weight4bit read_4bit(const std::string& name) const = 0;

  /// Brings what read_4bit() or write() of a tensor will read into memory. Threads may do so beside each other.
  virtual void read_ahead(const std::string& /*name*/) const {}
  /// Throws Error(bad_input), naming a tensor that write() gives and that cannot be quantized, since an element is not
  /// finite. Threads may do so beside each other.
  virtual void check_quantizable(const std::string& /*name*/) const {}

  /// Whether quantized() wants to be told of weights that write() gave and the loader quantized.
  [[nodiscard]] virtual bool wants_quantized() const { return false; }
  virtual void quantized(const std::string& /*name*/, const Weight4bit& /*weight*/) const {}

  /// The dtype that write() gives a tensor in, where the model wants `wanted`.
  [[nodiscard]] virtual DType written_dtype(const std::string& name, DType wanted) const = 0;
  /// Writes a tensor's elements to device memory, ordered with `stream`; the host may wait. With `exactly` they are
  /// rounded to `wanted`, else they come as written_dtype() says. Throws Error(bad_input) naming the tensor where it is
  /// missing or of another shape.
  virtual void write(const std::string& name, const Shape& shape, DType wanted, bool exactly, void* out,
                     cudaStream_t stream) const = 0;

 protected:
  WeightSource() = default;
  WeightSource(const WeightSource&) = default;
  WeightSource& operator=(const WeightSource&) = default;
};

/// A Hugging Face checkpoint, which must outlive the source.
std::unique_ptr<WeightSource> make_checkpoint_source(const HfCheckpoint& checkpoint);

/// A model of random weights, made on the device: norms 1, everything else with this standard deviation. Each tensor
/// depends on the seed and its name alone.
std::unique_ptr<WeightSource> make_random_source(double deviation, std::uint64_t seed);

}  // namespace qshard::optimized
