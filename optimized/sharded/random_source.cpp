#include "core/base/error.h"
#include "core/base/fnv_hash.h"
#include "optimized/random_values.h"
#include "optimized/sharded/weight_source.h"

namespace qshard::optimized {

namespace {

class RandomSource : public WeightSource {
 public:
  RandomSource(double deviation, std::uint64_t seed) : deviation_(deviation), seed_(seed) {}

  [[nodiscard]] std::optional<Weight4bitInfo> prequantized(const std::string&) const override { return std::nullopt; }
  [[nodiscard]] Weight4bit read_4bit(const std::string& name) const override {
    fail(ExitCode::check_failed, "{}: random weights are not in 4 bits", name);
  }
  [[nodiscard]] DType written_dtype(const std::string&, DType wanted) const override { return wanted; }

  void write(const std::string& name, const Shape& shape, DType wanted, bool, void* out,
             cudaStream_t stream) const override {
    const bool norm = shape.size() == 1 && name.ends_with("norm.weight");
    random_values(seed_ ^ fnv_hash(name), norm ? 1.0 : 0.0, norm ? 0.0 : deviation_, element_count(shape), wanted, out,
                  stream);
  }

 private:
  double deviation_;
  std::uint64_t seed_;
};

}  // namespace

std::unique_ptr<WeightSource> make_random_source(double deviation, std::uint64_t seed) {
  return std::make_unique<RandomSource>(deviation, seed);
}

}  // namespace qshard::optimized
