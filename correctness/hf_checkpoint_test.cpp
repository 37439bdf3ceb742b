#include "core/formats/hf_checkpoint.h"

#include <algorithm>

#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/formats/hf_config.h"
#include "correctness/expect_error.h"
#include "correctness/same_tensor.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

const std::filesystem::path kGolden(QSHARD_GOLDEN_DIR);

/// The golden model in two shards: the layers' tensors in the second.
class ShardedCheckpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    std::vector<std::pair<std::string, TensorView>> first;
    std::vector<std::pair<std::string, TensorView>> second;
    for (const std::string& name : whole_.names()) {
      const bool in_layer = name.starts_with("model.layers.");
      (in_layer ? second : first).emplace_back(name, whole_.tensor(name));
      weight_map_[name] = in_layer ? "model-00002-of-00002.safetensors" : "model-00001-of-00002.safetensors";
    }
    write_safetensors(directory_ / "model-00001-of-00002.safetensors", first);
    write_safetensors(directory_ / "model-00002-of-00002.safetensors", second);
    write_file(directory_ / "config.json", config_text(whole_.config()));
    write_index();
  }

  void write_index() {
    const Json index = {{"metadata", {{"total_size", 1}}}, {"weight_map", weight_map_}};
    write_file(index_path(), index.dump());
  }
  [[nodiscard]] std::string index_path() const { return (directory_ / "model.safetensors.index.json").string(); }
  void expect_refused(std::initializer_list<std::string_view> texts) {
    expect_bad_input({index_path()}, [&] { HfCheckpoint::open(directory_.path()); });
    expect_bad_input(texts, [&] { HfCheckpoint::open(directory_.path()); });
  }

  const HfCheckpoint whole_ = HfCheckpoint::open(kGolden / "llama/base");
  TemporaryDirectory directory_;
  std::map<std::string, std::string> weight_map_;
};

TEST_F(ShardedCheckpoint, HoldsWhatTheSingleFileHolds) {
  const HfCheckpoint sharded = HfCheckpoint::open(directory_.path());
  std::vector<std::string> expected = whole_.names();
  std::vector<std::string> found = sharded.names();
  std::sort(expected.begin(), expected.end());
  std::sort(found.begin(), found.end());
  EXPECT_EQ(found, expected);
  for (const std::string& name : expected) {
    EXPECT_TRUE(sharded.contains(name));
    EXPECT_TRUE(same_tensor(sharded.tensor(name), whole_.tensor(name))) << name;
  }
  EXPECT_EQ(sharded.config().hidden_size, 256);
  EXPECT_EQ(sharded.file_of("model.layers.0.mlp.up_proj.weight"), directory_ / "model-00002-of-00002.safetensors");
}

TEST_F(ShardedCheckpoint, ASingleFileComesFirst) {
  write_safetensors(directory_ / "model.safetensors", {});
  EXPECT_TRUE(HfCheckpoint::open(directory_.path()).names().empty());
}

TEST_F(ShardedCheckpoint, ATensorThatIsNotThereIsNamed) {
  const HfCheckpoint sharded = HfCheckpoint::open(directory_.path());
  EXPECT_FALSE(sharded.contains("model.missing"));
  expect_bad_input({directory_.path().string(), "\"model.missing\""}, [&] { (void)sharded.tensor("model.missing"); });
}

TEST_F(ShardedCheckpoint, AnIndexNamingAMissingFileIsRefused) {
  std::filesystem::remove(directory_ / "model-00002-of-00002.safetensors");
  expect_refused({"model-00002-of-00002.safetensors", "model.layers.0.", "missing"});
}

TEST_F(ShardedCheckpoint, AnIndexNamingATensorThatItsFileLacksIsRefused) {
  weight_map_["model.norm.weight"] = "model-00002-of-00002.safetensors";
  write_index();
  expect_refused({"model-00002-of-00002.safetensors", "\"model.norm.weight\""});
}

TEST_F(ShardedCheckpoint, ATensorThatTwoFilesHoldHasOneValue) {
  const std::string name = "model.norm.weight";  // of the first shard
  Tensor other(whole_.tensor(name));
  const auto write_second_with = [&](const Tensor& norm) {
    std::vector<std::pair<std::string, TensorView>> second{{name, norm.view()}};
    for (const auto& [tensor, file] : weight_map_) {
      if (file.starts_with("model-00002")) second.emplace_back(tensor, whole_.tensor(tensor));
    }
    write_safetensors(directory_ / "model-00002-of-00002.safetensors", second);
  };
  write_second_with(other);
  EXPECT_TRUE(same_tensor(HfCheckpoint::open(directory_.path()).tensor(name), other.view()));
  other.bytes()[0] ^= std::byte{1};
  write_second_with(other);
  expect_bad_input({name, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"},
                   [&] { HfCheckpoint::open(directory_.path()); });
}

TEST_F(ShardedCheckpoint, AnIndexLeadingOutOfTheDirectoryIsRefused) {
  for (const char* file : {"../model.safetensors", "/etc/passwd", "..", ".", "", "a/b"}) {
    weight_map_["model.norm.weight"] = file;
    write_index();
    expect_refused({"model.norm.weight", "name of a file"});
  }
}

TEST_F(ShardedCheckpoint, AnIndexOfAnotherFormIsRefused) {
  for (const char* text : {"", "[]", "{}", R"({"weight_map": []})", R"({"weight_map": {"a": 1}})",
                           R"({"weight_map": {"a": "f", "a": "f"}})"}) {
    write_file(index_path(), text);
    expect_refused({"index.json"});
  }
}

TEST_F(ShardedCheckpoint, ADamagedShardIsNamed) {
  write_file(directory_ / "model-00002-of-00002.safetensors", "short");
  expect_bad_input({"model-00002-of-00002.safetensors", "cut off"}, [&] { HfCheckpoint::open(directory_.path()); });
}

TEST(HfCheckpoint, AHubNameAndPickledWeightsComeWithAdvice) {
  expect_bad_input({"some-owner/some-model", "hf download some-owner/some-model"},
                   [] { HfCheckpoint::open("some-owner/some-model"); });
  const TemporaryDirectory directory;
  std::filesystem::copy(kGolden / "llama/base/config.json", directory.path());
  write_file(directory / "pytorch_model.bin", "x");
  expect_bad_input({directory.path().string(), "pytorch_model.bin is pickled", "save_pretrained"},
                   [&] { HfCheckpoint::open(directory.path()); });
}

TEST(HfCheckpoint, ADirectoryWithoutItsFilesIsRefused) {
  const TemporaryDirectory directory;
  expect_bad_input({"config.json", "No such file"}, [&] { HfCheckpoint::open(directory.path()); });
  std::filesystem::copy(kGolden / "llama/base/config.json", directory.path());
  expect_bad_input({directory.path().string(), "model.safetensors.index.json"},
                   [&] { HfCheckpoint::open(directory.path()); });
}

}  // namespace
}  // namespace qshard
