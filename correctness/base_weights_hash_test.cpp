#include "core/training/base_weights_hash.h"

#include <fstream>

#include <gtest/gtest.h>

#include "core/base/atomic_file.h"
#include "core/base/file.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;

std::string hash_of(const fs::path& model) {
  const std::string hash = base_weights_hash(HfCheckpoint::open(model));
  EXPECT_EQ(BaseWeightsHash(model).get(), hash);
  return hash;
}

TEST(BaseWeightsHash, IsThatOfTheContentWhereverItLies) {
  const TemporaryDirectory directory;
  const fs::path golden = fs::path(QSHARD_GOLDEN_DIR) / "llama/base";
  fs::copy(golden, directory / "copy");
  const std::string hash = hash_of(golden);
  EXPECT_EQ(hash.size(), 16U);
  EXPECT_EQ(hash_of(directory / "copy"), hash);
}

TEST(BaseWeightsHash, EveryPartOfTheContentCounts) {
  const TemporaryDirectory directory;
  const fs::path model = directory / "model";
  fs::copy(fs::path(QSHARD_GOLDEN_DIR) / "llama/base", model);
  const std::string hash = hash_of(model);
  const auto size = static_cast<std::streamoff>(fs::file_size(model / "model.safetensors"));
  for (const std::streamoff place : {size - 1, size / 2, size / 3}) {
    std::fstream file(model / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(place);
    const auto byte = static_cast<char>(file.get());
    file.seekp(place);
    file.put(static_cast<char>(byte ^ 1));
    file.close();
    EXPECT_NE(hash_of(model), hash) << place;
    file.open(model / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(place);
    file.put(byte);
    file.close();
    EXPECT_EQ(hash_of(model), hash);
  }
  std::string config = read_file(model / "config.json");
  config.replace(config.find("\"rms_norm_eps\": 1e-05"), 21, "\"rms_norm_eps\": 2e-05");
  write_file(model / "config.json", config);
  EXPECT_NE(hash_of(model), hash);
}

TEST(BaseWeightsHash, MayBeGivenUp) {
  const BaseWeightsHash unused(fs::path(QSHARD_GOLDEN_DIR) / "llama/base");
}

}  // namespace
}  // namespace qshard
