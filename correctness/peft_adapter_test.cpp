#include "core/formats/peft_adapter.h"

#include <algorithm>
#include <functional>
#include <tuple>

#include "core/base/file.h"
#include "core/formats/hf_config.h"
#include "correctness/expect_error.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

const std::filesystem::path kGolden = std::filesystem::path(QSHARD_GOLDEN_DIR) / "llama";
const ModelConfig kModel = read_hf_config(kGolden / "base/config.json");
constexpr const char* kModule = "model.layers.1.mlp.down_proj";

void expect_refused(const std::function<void(PeftAdapter&)>& change, std::initializer_list<std::string_view> texts) {
  const TemporaryDirectory directory;
  PeftAdapter adapter = read_adapter(kGolden / "adapter_init", kModel);
  change(adapter);
  write_adapter(directory.path(), adapter.config, adapter.tensors);
  expect_bad_input({directory.path().string()}, [&] { read_adapter(directory.path(), kModel); });
  expect_bad_input(texts, [&] { read_adapter(directory.path(), kModel); });
}

TEST(PeftAdapter, TheGoldenAdaptersComeBackAsTheSameBytes) {
  for (const char* name : {"adapter_init", "adapter_final_fp32", "adapter_final_bf16"}) {
    const TemporaryDirectory directory;
    const PeftAdapter adapter = read_adapter(kGolden / name, kModel);
    EXPECT_EQ(adapter.tensors.size(), 28U);
    write_adapter(directory.path(), adapter.config, adapter.tensors);
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
      EXPECT_TRUE(read_file(directory / file) == read_file(kGolden / name / file)) << name << "/" << file;
    }
  }
}

TEST(PeftAdapter, TensorsHaveTheShapesOfTheirModules) {
  const PeftAdapter adapter = read_adapter(kGolden / "adapter_final_bf16", kModel);
  EXPECT_EQ(adapter.tensors.at(lora_a_name(kModule)).shape(), (Shape{8, 688}));
  EXPECT_EQ(adapter.tensors.at(lora_b_name(kModule)).shape(), (Shape{256, 8}));
  EXPECT_EQ(adapter.tensors.at(lora_b_name("model.layers.0.self_attn.k_proj")).shape(), (Shape{128, 8}));
  EXPECT_EQ(adapter.tensors.at(lora_a_name(kModule)).dtype(), DType::bf16);
}

TEST(PeftAdapter, AnAdapterThatDoesNotFitTheModelIsRefused) {
  const std::string a = lora_a_name(kModule);
  const std::string b = lora_b_name(kModule);
  expect_refused([&](PeftAdapter& x) { x.tensors.erase(a); }, {"adapter_model.safetensors", a, "missing"});
  expect_refused([&](PeftAdapter& x) { x.tensors.erase(b); }, {"adapter_model.safetensors", b, "missing"});
  expect_refused([&](PeftAdapter& x) { x.tensors[a] = Tensor(DType::f32, {8, 687}); }, {a, "[8, 687]", "[8, 688]"});
  expect_refused([&](PeftAdapter& x) { x.tensors[b] = Tensor(DType::f32, {8, 256}); }, {b, "[8, 256]", "[256, 8]"});
  expect_refused([&](PeftAdapter& x) { x.tensors[b] = Tensor(DType::i32, {256, 8}); }, {b, "int32"});
  expect_refused([&](PeftAdapter& x) { x.config.r = 4; }, {"adapter_model.safetensors", "[8, 256]", "[4, 256]"});
  const std::string foreign = lora_a_name("model.layers.2.mlp.down_proj");
  expect_refused([&](PeftAdapter& x) { x.tensors[foreign] = Tensor(DType::f32, {8, 688}); }, {foreign, "no linear"});
  expect_refused([](PeftAdapter& x) { x.config.target_modules = {"q_proj"}; }, {"no linear", "mlp.down_proj.lora_A"});
  expect_refused(
      [](PeftAdapter& x) {
        x.config.target_modules = {"lm_head"};
        x.tensors.clear();
      },
      {"adapter_config.json", "target_modules"});
}

// A raw state dict has the adapter's name in its keys, and the wrapper's around modules that are saved whole.
TEST(PeftAdapter, KeysOfRawStateDictsAreRead) {
  for (const auto& [family, plain, raw] :
       {std::tuple{"dora", "self_attn.q_proj.lora_magnitude_vector",
                   "self_attn.q_proj.lora_magnitude_vector.default.weight"},
        std::tuple{"lora_bias", "mlp.up_proj.lora_B.bias", "mlp.up_proj.lora_B.default.bias"},
        std::tuple{"embedding_head_trained", "lm_head.weight", "lm_head.modules_to_save.default.weight"}}) {
    const std::filesystem::path of = kGolden.parent_path() / "families" / family;
    const ModelConfig model = read_hf_config(of / "base/config.json");
    const PeftAdapter adapter = read_adapter(of / "adapter_final_fp32", model);
    NamedTensors renamed;
    int changed = 0;
    for (const auto& [name, tensor] : adapter.tensors) {
      const bool is_one = name.ends_with(plain);
      changed += is_one ? 1 : 0;
      renamed[is_one ? name.substr(0, name.size() - std::string(plain).size()) + raw : name] = tensor;
    }
    EXPECT_GT(changed, 0);
    const TemporaryDirectory directory;
    write_adapter(directory.path(), adapter.config, renamed);
    const PeftAdapter back = read_adapter(directory.path(), model);
    ASSERT_EQ(back.tensors.size(), adapter.tensors.size());
    for (const auto& [name, tensor] : adapter.tensors) {
      EXPECT_TRUE(std::ranges::equal(back.tensors.at(name).bytes(), tensor.bytes())) << name;
    }
    renamed.insert(adapter.tensors.begin(), adapter.tensors.end());
    write_adapter(directory.path(), adapter.config, renamed);
    expect_bad_input({plain, "there twice"}, [&] { read_adapter(directory.path(), model); });
  }
}

TEST(PeftAdapter, TablesSavedAlongTakeThePlaceOfTheBases) {
  const std::filesystem::path of = kGolden.parent_path() / "families/embedding_head_trained";
  const ModelConfig model = read_hf_config(of / "base/config.json");
  PeftAdapter adapter = read_adapter(of / "adapter_final_fp32", model);
  const TemporaryDirectory directory;
  adapter.config.modules_to_save = {"lm_head"};
  write_adapter(directory.path(), adapter.config, adapter.tensors);
  const PeftAdapter back = read_adapter(directory.path(), model);
  EXPECT_EQ(back.saved_along, std::vector<std::string>{"embed_tokens"});
  EXPECT_EQ(back.config.modules_to_save, (std::vector<std::string>{"lm_head", "embed_tokens"}));
  ASSERT_EQ(back.tensors.size(), adapter.tensors.size());
  const std::string name = "base_model.model.model.embed_tokens.weight";
  EXPECT_TRUE(std::ranges::equal(back.tensors.at(name).bytes(), adapter.tensors.at(name).bytes()));
  adapter.config.modules_to_save = {"lm_head", "embed_tokens"};
  ModelConfig tied = model;
  tied.tie_word_embeddings = true;
  write_adapter(directory.path(), adapter.config, adapter.tensors);
  expect_bad_input({"modules_to_save", "tie_word_embeddings", "merge"}, [&] { read_adapter(directory.path(), tied); });
  ModelConfig smaller = model;
  smaller.vocab_size -= 2;
  expect_bad_input({"embed_tokens.weight", fmt::format("resize_token_embeddings({})", model.vocab_size)},
                   [&] { read_adapter(directory.path(), smaller); });
}

TEST(PeftAdapter, AnAdapterOnTheOutputHeadIsRefusedByName) {
  PeftAdapter adapter = read_adapter(kGolden / "adapter_init", kModel);
  const TemporaryDirectory directory;
  adapter.tensors["base_model.model.lm_head.lora_A.weight"] = Tensor(DType::f32, {8, kModel.hidden_size});
  write_adapter(directory.path(), adapter.config, adapter.tensors);
  expect_bad_input({"lm_head.lora_A.weight", "output head", "./qshard merge"},
                   [&] { read_adapter(directory.path(), kModel); });
}

TEST(PeftAdapter, MissingFilesAreNamed) {
  const TemporaryDirectory directory;
  expect_bad_input({(directory / "adapter_config.json").string(), "No such file"},
                   [&] { read_adapter(directory.path(), kModel); });
  std::filesystem::copy(kGolden / "adapter_init/adapter_config.json", directory.path());
  expect_bad_input({(directory / "adapter_model.safetensors").string(), "No such file"},
                   [&] { read_adapter(directory.path(), kModel); });
}

}  // namespace
}  // namespace qshard
