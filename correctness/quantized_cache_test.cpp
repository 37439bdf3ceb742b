// The cache of quantized weights: gives back every bit; is used for the files that it was made from and for no others;
// and what is cut, changed or half written is no cache.
#include "core/formats/quantized_cache.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>

#include <gtest/gtest.h>

#include "core/base/atomic_file.h"
#include "core/base/file.h"
#include "correctness/expect_error.h"
#include "correctness/golden_llama.h"
#include "correctness/restamp_cache.h"
#include "correctness/temporary_directory.h"
#include "reference/quantize.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kNames{"model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"};

class QuantizedCacheTest : public testing::Test {
 protected:
  QuantizedCacheTest() {
    fs::copy(golden_llama() / "base", model(), fs::copy_options::recursive);
    place_ = quantized_cache_place(directory_.path() / "caches", checkpoint(), {});
  }

  [[nodiscard]] fs::path model() const { return directory_.path() / "model"; }
  [[nodiscard]] fs::path weights_file() const { return model() / "model.safetensors"; }
  [[nodiscard]] HfCheckpoint checkpoint() const { return HfCheckpoint::open(model()); }
  [[nodiscard]] std::string identity(const QuantizationOptions& options = {}) const {
    return quantized_cache_identity(checkpoint(), options);
  }

  [[nodiscard]] static Weight4bit quantized(const HfCheckpoint& of, const std::string& name) {
    return reference::quantize(of.tensor(name), {}, name);
  }

  /// Two writers, as two ranks.
  void write() const {
    const HfCheckpoint from = checkpoint();
    AtomicDirectory directory(place_);
    Json entries = Json::object();
    for (const std::string& name : kNames) {
      QuantizedCacheWriter writer(directory.path());
      writer.add(name, quantized(from, name), from.tensor(name));
      entries.update(writer.entries());
    }
    QuantizedCacheWriter::write_manifest(directory.path(), identity(), entries);
    directory.commit();
  }

  [[nodiscard]] bool is_there() const { return QuantizedCache::open(place_, identity()).has_value(); }

  static void flip_byte(const fs::path& path, std::streamoff from_end) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-from_end, std::ios::end);
    const int byte = file.get();
    file.seekp(-from_end, std::ios::end);
    file.put(static_cast<char>(byte ^ 1));
  }

  TemporaryDirectory directory_;
  fs::path place_;
};

TEST_F(QuantizedCacheTest, GivesBackEveryBit) {
  EXPECT_FALSE(is_there());
  write();
  const auto cache = QuantizedCache::open(place_, identity());
  ASSERT_TRUE(cache);
  const HfCheckpoint from = checkpoint();
  for (const std::string& name : kNames) {
    ASSERT_TRUE(cache->contains(name));
    const Weight4bit wanted = quantized(from, name);
    const Weight4bit got = cache->read(name);
    EXPECT_EQ(got.codes, wanted.codes);
    EXPECT_EQ(got.absmax_codes, wanted.absmax_codes);
    EXPECT_EQ(got.nested_absmax, wanted.nested_absmax);
    EXPECT_EQ(got.info.nested_map, wanted.info.nested_map);
    EXPECT_EQ(got.info.offset, wanted.info.offset);
    EXPECT_EQ(cache->info(name).shape, wanted.info.shape);
    EXPECT_TRUE(cache->is_unchanged(name, from.tensor(name)));
  }
  EXPECT_FALSE(cache->contains("model.layers.0.self_attn.k_proj.weight"));
}

TEST_F(QuantizedCacheTest, OtherOptionsHaveAnotherPlace) {
  QuantizationOptions options;
  options.blocksize = 128;
  EXPECT_NE(quantized_cache_place("root", checkpoint(), options), quantized_cache_place("root", checkpoint(), {}));
  EXPECT_NE(identity(options), identity());
  options = {};
  options.double_quant = false;
  EXPECT_NE(identity(options), identity());
  options = {};
  options.quant_storage = DType::bf16;  // changes no bit
  EXPECT_EQ(identity(options), identity());
}

TEST_F(QuantizedCacheTest, IsNotUsedForFilesThatWereChanged) {
  write();
  ASSERT_TRUE(is_there());
  const auto modified = fs::last_write_time(weights_file());
  flip_byte(weights_file(), 1);
  EXPECT_FALSE(is_there()) << "a byte was changed";
  fs::last_write_time(weights_file(), modified);
  EXPECT_FALSE(is_there()) << "a byte was changed, and the file's time set back";
}

TEST_F(QuantizedCacheTest, IsNotUsedForAnotherFileInThePlaceOfTheFirst) {
  write();
  const auto modified = fs::last_write_time(weights_file());
  fs::copy_file(weights_file(), model() / "other");
  fs::rename(model() / "other", weights_file());
  fs::last_write_time(weights_file(), modified);
  EXPECT_FALSE(is_there());
}

TEST_F(QuantizedCacheTest, WhatIsCutOrHalfWrittenIsNoCache) {
  write();
  ASSERT_TRUE(is_there());
  const fs::path file = place_ / (kNames[1] + ".safetensors");
  const auto size = fs::file_size(file);
  fs::resize_file(file, size - 1);
  EXPECT_FALSE(is_there()) << "a weight's file is cut";
  fs::remove(file);
  EXPECT_FALSE(is_there()) << "a weight's file is missing";
  fs::copy_file(place_ / (kNames[0] + ".safetensors"), file);
  EXPECT_FALSE(is_there()) << "another weight's file is in its place";
  write();
  ASSERT_TRUE(is_there());
  fs::resize_file(place_ / "cache.json", fs::file_size(place_ / "cache.json") / 2);
  EXPECT_FALSE(is_there()) << "cache.json is cut";
  fs::remove(place_ / "cache.json");
  EXPECT_FALSE(is_there()) << "cache.json is missing";
}

TEST_F(QuantizedCacheTest, HashesFindBytesThatNobodyElseSees) {
  write();
  const std::string before = identity();
  flip_byte(place_ / (kNames[0] + ".safetensors"), 5);
  EXPECT_FALSE(is_there()) << "the file was written to";
  test::restamp_cache(place_);
  const auto cache = QuantizedCache::open(place_, before);
  ASSERT_TRUE(cache);  // size and header are the same
  const HfCheckpoint from = checkpoint();
  EXPECT_FALSE(cache->is_unchanged(kNames[0], from.tensor(kNames[0])));
  EXPECT_TRUE(cache->is_unchanged(kNames[1], from.tensor(kNames[1])));
  Tensor changed(from.tensor(kNames[1]));
  changed.as<std::uint16_t>()[0] ^= 1;
  EXPECT_FALSE(cache->is_unchanged(kNames[1], changed.view()));
}

/// A byte that changed on the disk behind the file system's back: no cache, or the hashes find it. Every byte of the
/// header and 1,000 of the data.
TEST_F(QuantizedCacheTest, AChangedByteOfAWeightIsFound) {
  write();
  const std::string made_from = identity();
  const HfCheckpoint from = checkpoint();
  const fs::path file = place_ / (kNames[1] + ".safetensors");
  const std::string good = read_file(file);
  const SafetensorsHeader header = parse_safetensors_header(std::as_bytes(std::span(good)), file.string());
  const std::size_t data = header.entries.at(header.names.front()).begin;
  std::mt19937_64 random(std::random_device{}());
  int opened = 0;
  for (std::size_t i = 0; i < data + 1000; ++i) {
    const std::size_t place = i < data ? i : data + random() % (good.size() - data);
    std::string changed = good;
    changed[place] ^= static_cast<char>(1 + random() % 255);
    std::ofstream(file, std::ios::binary) << changed;
    test::restamp_cache(place_);
    const auto cache = QuantizedCache::open(place_, made_from);
    if (!cache) continue;
    ++opened;
    ASSERT_FALSE(cache->is_unchanged(kNames[1], from.tensor(kNames[1]))) << "byte " << place;
    ASSERT_TRUE(cache->is_unchanged(kNames[0], from.tensor(kNames[0]))) << "byte " << place;
    try {
      static_cast<void>(cache->read(kNames[1]));  // without cache_check: another value, or a refusal
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ExitCode::bad_input) << "byte " << place;
    }
  }
  EXPECT_GE(opened, 1000);  // size and header are the same
}

/// Nobody uses a cache.json of which a byte was changed, or what comes from it is what was written.
TEST_F(QuantizedCacheTest, AChangedByteOfTheManifestChangesNoWeight) {
  write();
  const fs::path manifest = place_ / "cache.json";
  const std::string good = read_file(manifest);
  const std::string made_from = identity();
  const HfCheckpoint from = checkpoint();
  std::mt19937_64 random(std::random_device{}());
  int used = 0;
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string changed = good;
    changed[i] ^= static_cast<char>(1 + random() % 255);
    std::ofstream(manifest, std::ios::binary) << changed;
    const auto cache = QuantizedCache::open(place_, made_from);
    if (!cache) continue;
    ++used;
    for (const std::string& name : kNames) {
      if (!cache->contains(name)) continue;
      ASSERT_EQ(cache->read(name).codes, quantized(from, name).codes) << name << ", byte " << i << " of cache.json";
    }
  }
  EXPECT_GT(used, 0);  // a digit of a hash, which only cache_check reads
}

TEST_F(QuantizedCacheTest, FilesThatHaveJustBeenChangedAreNotSettled) {
  const auto now = std::chrono::system_clock::now();
  EXPECT_FALSE(is_settled(checkpoint(), now));
  EXPECT_TRUE(is_settled(checkpoint(), now + std::chrono::seconds(10)));
}

TEST_F(QuantizedCacheTest, KeepsTheHashOfTheBaseWeightsForItsIdentity) {
  keep_base_hash(place_, identity(), "0123456789abcdef");
  EXPECT_FALSE(kept_base_hash(place_, identity())) << "there is no cache to keep it in";
  write();
  EXPECT_FALSE(kept_base_hash(place_, identity()));
  keep_base_hash(place_, identity(), "0123456789abcdef");
  EXPECT_EQ(kept_base_hash(place_, identity()), "0123456789abcdef");
  EXPECT_FALSE(kept_base_hash(place_, "something else"));
  const std::string kept = read_file(place_ / "base_weights_hash.json");
  for (std::size_t i = 0; i < kept.size(); ++i) {
    std::string changed = kept;
    changed[i] ^= 1;  // another digit, where it is one
    std::ofstream(place_ / "base_weights_hash.json", std::ios::binary) << changed;
    const auto found = kept_base_hash(place_, identity());
    EXPECT_TRUE(!found || *found == "0123456789abcdef") << "byte " << i;
  }
  EXPECT_TRUE(is_there());
}

TEST_F(QuantizedCacheTest, AWriterThatCannotWriteSaysSo) {
  const HfCheckpoint from = checkpoint();
  QuantizedCacheWriter writer(directory_.path() / "missing");
  EXPECT_THROW(writer.add(kNames[0], quantized(from, kNames[0]), from.tensor(kNames[0])), Error);
  EXPECT_TRUE(writer.entries().empty());
}

}  // namespace
}  // namespace qshard
