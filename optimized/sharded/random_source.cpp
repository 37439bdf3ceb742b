#include "core/base/error.h"
#include "optimized/random_values.h"
#include "optimized/sharded/weight_source.h"

namespace qshard::optimized {

namespace {

// FNV-1a, 64 bits: a fixed number for a name on every platform.
std::uint64_t hash_name(const std::string& name) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  return hash;
}

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
    random_values(seed_ ^ hash_name(name), norm ? 1.0 : 0.0, norm ? 0.0 : deviation_, element_count(shape), wanted, out,
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
