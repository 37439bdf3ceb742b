#include "core/formats/checkpoint_check.h"

#include "core/base/atomic_file.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/formats/bnb_checkpoint.h"
#include "correctness/expect_error.h"
#include "correctness/temporary_directory.h"
#include "reference/sharded_engine.h"

namespace qshard {
namespace {

const std::filesystem::path kGolden = std::filesystem::path(QSHARD_GOLDEN_DIR) / "llama";
constexpr const char* kWeight = "model.layers.1.mlp.up_proj.weight";

/// A golden checkpoint with changes, in a directory of its own.
class Changed {
 public:
  explicit Changed(const char* golden) {
    const HfCheckpoint checkpoint = HfCheckpoint::open(kGolden / golden);
    config = parse_json(checkpoint.config().text, "config.json");
    for (const std::string& name : checkpoint.names()) tensors.emplace(name, checkpoint.tensor(name));
  }

  [[nodiscard]] HfCheckpoint open() const {
    std::vector<std::pair<std::string, TensorView>> views;
    for (const auto& [name, tensor] : tensors) views.emplace_back(name, tensor.view());
    write_safetensors(directory_ / "model.safetensors", std::move(views));
    write_file(directory_ / "config.json", config.dump());
    return HfCheckpoint::open(directory_.path());
  }

  void expect_refused(std::initializer_list<std::string_view> texts) const {
    const HfCheckpoint checkpoint = open();
    expect_bad_input({directory_.path().string()}, [&] { check_checkpoint(checkpoint); });
    expect_bad_input(texts, [&] { check_checkpoint(checkpoint); });
  }

  /// Puts a weight of 16 bits in the place of a 4-bit one.
  void keep_in_16_bits(const std::string& name, const Shape& shape) {
    std::erase_if(tensors, [&](const auto& item) { return item.first.starts_with(name + "."); });
    tensors[name] = Tensor(DType::bf16, shape);
  }

  Json config;
  NamedTensors tensors;

 private:
  TemporaryDirectory directory_;
};

TEST(CheckpointCheck, GoldenCheckpointsPass) {
  for (const char* golden : {"base", "bnb4bit"}) {
    SCOPED_TRACE(golden);
    check_checkpoint(HfCheckpoint::open(kGolden / golden));
  }
  EXPECT_EQ(count_weights4bit(HfCheckpoint::open(kGolden / "base")), 0);
  EXPECT_EQ(count_weights4bit(HfCheckpoint::open(kGolden / "bnb4bit")), 14);
}

TEST(CheckpointCheck, LayersKeptIn16BitsPass) {
  Changed changed("bnb4bit");
  changed.keep_in_16_bits(kWeight, {688, 256});
  const HfCheckpoint checkpoint = changed.open();
  check_checkpoint(checkpoint);
  EXPECT_EQ(count_weights4bit(checkpoint), 13);
}

TEST(CheckpointCheck, AWeightOfAnotherShapeIsRefused) {
  Changed changed("bnb4bit");
  changed.config["intermediate_size"] = 689;
  changed.expect_refused({"mlp.down_proj.weight", "4-bit weight of shape [256, 688]", "[256, 689]"});
  Changed turned("base");
  turned.tensors[kWeight] = Tensor(DType::bf16, {256, 688});
  turned.expect_refused({kWeight, "[256, 688]", "[688, 256]"});
}

TEST(CheckpointCheck, AnEngineRefusesA4BitWeightOfAnotherShapeByItself) {
  Changed changed("bnb4bit");
  const Json size = changed.config["intermediate_size"];
  EngineOptions options;
  options.quantization.load_in_4bit = false;
  options.lora.target_modules = {"all-linear"};
  EXPECT_NO_THROW(reference::make_sharded_engine(changed.open(), options, nullptr));
  changed.config["intermediate_size"] = size.get<int>() + 1;
  const HfCheckpoint checkpoint = changed.open();
  expect_bad_input({"layers.0.mlp.gate_proj.weight", "4-bit weight of shape [688, 256]", "[689, 256]"},
                   [&] { reference::make_sharded_engine(checkpoint, options, nullptr); });
}

TEST(CheckpointCheck, AStaleQuantizationConfigIsRefused) {
  Changed changed("base");
  changed.config["quantization_config"] = Json{{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}};
  changed.expect_refused({"config.json", "quantization_config", "remove"});
  Changed without("bnb4bit");
  without.config.erase("quantization_config");
  without.expect_refused({"config.json", "14 weights are 4-bit", "no quantization_config"});
}

TEST(CheckpointCheck, TensorsWithoutAPlaceAreRefused) {
  for (const char* name : {"model.layers.0.self_attn.o_proj.bias", "model.layers.2.mlp.up_proj.weight",
                           "model.layers.0.self_attn.q_norm.weight", "score.weight"}) {
    SCOPED_TRACE(name);
    Changed changed("base");
    changed.tensors[name] = Tensor(DType::bf16, {256});
    changed.expect_refused({name, "no place"});
  }
  Changed old("base");
  old.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = Tensor(DType::f32, {32});
  check_checkpoint(old.open());
}

TEST(CheckpointCheck, ATensorOfIntegersIsRefused) {
  for (const std::string name : {"model.norm.weight", "model.layers.0.mlp.down_proj.weight"}) {
    SCOPED_TRACE(name);
    Changed changed("base");
    changed.tensors[name] = Tensor(DType::i32, changed.tensors.at(name).shape());
    changed.expect_refused({name, "int32", "floating-point"});
  }
}

TEST(CheckpointCheck, AMissingTensorIsRefused) {
  Changed changed("base");
  changed.tensors.erase("model.layers.1.post_attention_layernorm.weight");
  changed.expect_refused({"model.layers.1.post_attention_layernorm.weight", "missing"});
}

/// The 4-bit up_proj [688, 256] under another name too.
void add_copy_in_4_bits(Changed& changed, const std::string& as) {
  const std::string donor = "model.layers.0.mlp.up_proj.weight";
  const NamedTensors all = changed.tensors;
  for (const auto& [name, tensor] : all) {
    if (name.starts_with(donor)) changed.tensors[as + name.substr(donor.size())] = tensor;
  }
}

TEST(CheckpointCheck, AnOutputHeadIn4BitsHasItsShape) {
  Changed changed("bnb4bit");
  add_copy_in_4_bits(changed, "lm_head.weight");
  changed.expect_refused({"lm_head.weight", "4-bit weight of shape [688, 256]", "[512, 256]"});
}

TEST(CheckpointCheck, AnEmbeddingIn4BitsIsRefused) {
  Changed changed("bnb4bit");
  add_copy_in_4_bits(changed, "model.embed_tokens.weight");
  changed.expect_refused({"model.embed_tokens.weight", "quantized to 4 bits", "dequantize"});
}

TEST(CheckpointCheck, AReplacedWeightHasNoParts) {
  HfCheckpoint checkpoint = HfCheckpoint::open(kGolden / "bnb4bit");
  const std::size_t names = checkpoint.names().size();
  const Tensor tensor(DType::bf16, {688, 256});
  checkpoint.replace(kWeight, tensor);
  check_checkpoint(checkpoint);
  EXPECT_FALSE(has_weight4bit(checkpoint, kWeight));
  EXPECT_EQ(checkpoint.tensor(kWeight).shape, (Shape{688, 256}));
  EXPECT_EQ(checkpoint.names().size(), names - 5);  // absmax, quant_map, nested_absmax, nested_quant_map, quant_state
}

TEST(CheckpointCheck, ATiedModelUsesItsOwnHeadWhereItDiffers) {
  Changed changed("base");
  changed.config["tie_word_embeddings"] = true;
  EXPECT_FALSE(changed.open().config().tie_word_embeddings);
  changed.tensors["lm_head.weight"] = changed.tensors.at("model.embed_tokens.weight");
  const HfCheckpoint tied = changed.open();
  EXPECT_TRUE(tied.config().tie_word_embeddings);
  check_checkpoint(tied);
}

}  // namespace
}  // namespace qshard
