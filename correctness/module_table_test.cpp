#include "core/model/module_table.h"

#include <gtest/gtest.h>

#include "core/formats/hf_checkpoint.h"

namespace qshard {
namespace {

TEST(LlamaModules, NameEveryLinearLayerOfTheGoldenModelWithItsShape) {
  const HfCheckpoint golden = HfCheckpoint::open(std::filesystem::path(QSHARD_GOLDEN_DIR) / "llama/base");
  const std::vector<LinearModule> modules = linear_modules(golden.config());
  EXPECT_EQ(modules.size(), 14U);
  for (const LinearModule& module : modules) {
    EXPECT_EQ(golden.tensor(module.name + ".weight").shape, (Shape{module.out, module.in})) << module.name;
  }
  EXPECT_EQ(modules[7].name, "model.layers.1.self_attn.q_proj");
}

}  // namespace
}  // namespace qshard
