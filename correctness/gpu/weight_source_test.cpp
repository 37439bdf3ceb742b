// A checkpoint as the source of weights: what cannot be quantized is refused by name before it is. Needs no GPU.
#include "optimized/sharded/weight_source.h"

#include <gtest/gtest.h>

#include "core/formats/safetensors.h"
#include "correctness/expect_error.h"
#include "correctness/golden_llama.h"
#include "correctness/temporary_directory.h"

namespace qshard::test {
namespace {

TEST(WeightSource, AWeightThatIsNotFiniteIsRefused) {
  const TemporaryDirectory directory;
  std::filesystem::copy(golden_llama() / "base", directory.path());
  std::filesystem::remove(directory.path() / "model.safetensors");
  const HfCheckpoint golden = HfCheckpoint::open(golden_llama() / "base");
  const std::string damaged = "model.layers.1.mlp.up_proj.weight";
  Tensor changed(golden.tensor(damaged));
  ASSERT_EQ(changed.dtype(), DType::bf16);
  changed.as<std::uint16_t>().back() = 0x7FC0;  // NaN
  std::vector<std::pair<std::string, TensorView>> tensors;
  for (const std::string& name : golden.names()) {
    tensors.emplace_back(name, name == damaged ? changed.view() : golden.tensor(name));
  }
  write_safetensors(directory.path() / "model.safetensors", tensors, {});

  const HfCheckpoint checkpoint = HfCheckpoint::open(directory.path());
  const auto source = optimized::make_checkpoint_source(checkpoint);
  EXPECT_NO_THROW(source->check_quantizable("model.layers.0.mlp.up_proj.weight"));
  expect_bad_input({damaged, "finite"}, [&] { source->check_quantizable(damaged); });
}

}  // namespace
}  // namespace qshard::test
