#include "core/model/module_table.h"

#include <gtest/gtest.h>

#include "core/formats/hf_checkpoint.h"

namespace qshard {
namespace {

TEST(ModuleTable, NamesEveryLinearLayerOfTheGoldenModelWithItsShape) {
  const HfCheckpoint golden = HfCheckpoint::open(std::filesystem::path(QSHARD_GOLDEN_DIR) / "llama/base");
  const std::vector<LinearModule> modules = linear_modules(golden.config());
  EXPECT_EQ(modules.size(), 14U);
  for (const LinearModule& module : modules) {
    EXPECT_EQ(golden.tensor(module.name + ".weight").shape, (Shape{module.out, module.in})) << module.name;
  }
  EXPECT_EQ(modules[7].name, "model.layers.1.self_attn.q_proj");
}

TEST(ModuleTable, RolesAreTheirOwnIndexAndNameTheModule) {
  const auto table = layer_modules(ModelConfig{});
  for (std::size_t i = 0; i < table.size(); ++i) {
    EXPECT_EQ(table[i].role, static_cast<Projection>(i));
    EXPECT_EQ(table[i].name, module_name(static_cast<Projection>(i)));
  }
  EXPECT_EQ(module_name(Projection::q), "self_attn.q_proj");
  EXPECT_EQ(module_name(Projection::o), "self_attn.o_proj");
  EXPECT_EQ(module_name(Projection::gate), "mlp.gate_proj");
  EXPECT_EQ(module_name(Projection::down), "mlp.down_proj");
}

TEST(ModuleTable, BiasesFollowTheModelsFlags) {
  const auto biased = [](bool qkv, bool o, bool mlp) {
    ModelConfig config;
    config.qkv_bias = qkv;
    config.o_bias = o;
    config.mlp_bias = mlp;
    std::string found;
    for (const LinearModule& module : layer_modules(config)) found += module.bias ? '1' : '0';
    return found;
  };
  EXPECT_EQ(biased(false, false, false), "0000000");
  EXPECT_EQ(biased(true, false, false), "1110000");
  EXPECT_EQ(biased(false, true, false), "0001000");
  EXPECT_EQ(biased(false, false, true), "0000111");
}

}  // namespace
}  // namespace qshard
