#include "core/base/error.h"
#include "core/base/read_ahead.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/tensor/finite.h"
#include "optimized/device/cuda_check.h"
#include "optimized/sharded/weight_source.h"

namespace qshard::optimized {

namespace {

class CheckpointSource : public WeightSource {
 public:
  explicit CheckpointSource(const HfCheckpoint& checkpoint) : checkpoint_(&checkpoint) {}

  [[nodiscard]] std::optional<Weight4bitInfo> prequantized(const std::string& name) const override {
    if (!has_weight4bit(*checkpoint_, name)) return std::nullopt;
    return read_weight4bit_info(*checkpoint_, name);
  }

  [[nodiscard]] Weight4bit read_4bit(const std::string& name) const override {
    return read_weight4bit(*checkpoint_, name);
  }

  void read_ahead(const std::string& name) const override {
    if (checkpoint_->contains(name)) qshard::read_ahead(checkpoint_->tensor(name).bytes);
  }

  void check_quantizable(const std::string& name) const override { check_finite(checkpoint_->tensor(name), name); }

  [[nodiscard]] DType written_dtype(const std::string& name, DType) const override {
    return checkpoint_->tensor(name).dtype;
  }

  void write(const std::string& name, const Shape& shape, DType wanted, bool exactly, void* out,
             cudaStream_t stream) const override {
    const TensorView tensor = checkpoint_->tensor(name);
    if (tensor.shape != shape) {
      fail_input("{}: tensor {} has shape {}, but config.json asks for {}", checkpoint_->directory().string(), name,
                 to_string(tensor.shape), to_string(shape));
    }
    if (!exactly || tensor.dtype == wanted) {
      copy(tensor.bytes, out, stream);
    } else {
      copy(from_floats(to_floats(tensor), wanted, shape).bytes(), out, stream);
    }
  }

 private:
  static void copy(std::span<const std::byte> bytes, void* out, cudaStream_t stream) {
    QSHARD_CUDA_CHECK(cudaMemcpyAsync(out, bytes.data(), bytes.size(), cudaMemcpyHostToDevice, stream));
    QSHARD_CUDA_CHECK(cudaStreamSynchronize(stream));
  }

  const HfCheckpoint* checkpoint_;
};

}  // namespace

std::unique_ptr<WeightSource> make_checkpoint_source(const HfCheckpoint& checkpoint) {
  return std::make_unique<CheckpointSource>(checkpoint);
}

}  // namespace qshard::optimized
