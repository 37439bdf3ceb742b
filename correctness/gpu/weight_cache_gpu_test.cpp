// The cache of quantized weights in a run: the first start writes it, the second reads it, and neither changes a bit;
// one that was changed is written anew; what was changed behind the file system's back is found where hashes are asked
// for; and a cache that cannot be written is none.
#include <fstream>

#include <gmock/gmock.h>

#include "core/launch/rank_link.h"
#include "correctness/golden_training.h"
#include "correctness/gpu/gpu_testing.h"
#include "correctness/restamp_cache.h"
#include "correctness/temporary_directory.h"
#include "optimized/sharded/sharded_engine.h"
#include "optimized/sharded/weight_cache.h"

namespace qshard::test {
namespace {

namespace fs = std::filesystem;
using reference::Trajectory;
using testing::HasSubstr;

class WeightCacheGpu : public GpuTest {
 protected:
  struct Start {
    Trajectory run;
    std::string note;
  };

  [[nodiscard]] Start start(const fs::path& root, bool checks = false, DType storage = DType::u8) const {
    RankLink link = RankLink::connect(RankInfo{}, {});
    const HfCheckpoint checkpoint = HfCheckpoint::open(golden_llama() / "base");
    EngineOptions options = golden_options(DType::bf16);
    options.quantization.load_in_4bit = true;
    options.quantization.quant_storage = storage;
    const TokenBatch batch = golden_batches(1)[0];
    const BatchBound bound{batch.tokens(), batch.rows(), longest_row(batch)};
    optimized::WeightCache cache(checkpoint, options, root, checks, link);
    const auto engine =
        optimized::make_sharded_engine(checkpoint.config(), cache.source(), options, {bound, bound}, link);
    Start result;
    result.note = cache.finish();
    result.run = reference::train(*engine, golden_llama(), kGoldenLearningRate, 2);
    return result;
  }

  static void expect_same(const Trajectory& got, const Trajectory& wanted) {
    EXPECT_EQ(got.losses, wanted.losses);
    ASSERT_EQ(got.adapter.size(), wanted.adapter.size());
    for (const auto& [name, tensor] : wanted.adapter) {
      EXPECT_TRUE(std::ranges::equal(got.adapter.at(name).bytes(), tensor.bytes())) << name;
    }
  }

  /// Of one cached weight; returns the cache's place.
  fs::path change_a_byte() const {
    const fs::path place = *fs::directory_iterator(directory_.path());
    const fs::path file = place / "model.layers.1.mlp.up_proj.weight.safetensors";
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(-1000, std::ios::end);
    const int byte = stream.get();
    stream.seekp(-1000, std::ios::end);
    stream.put(static_cast<char>(byte ^ 0x11));
    return place;
  }

  TemporaryDirectory directory_;
};

TEST_F(WeightCacheGpu, SecondStartHasTheBitsOfTheFirst) {
  const Start first = start(directory_.path());
  EXPECT_THAT(first.note, HasSubstr("wrote quantized weights to"));
  const Start second = start(directory_.path());
  EXPECT_THAT(second.note, HasSubstr("quantized weights from"));
  expect_same(second.run, first.run);
  const Start stored_otherwise = start(directory_.path(), true, DType::bf16);
  EXPECT_THAT(stored_otherwise.note, HasSubstr("quantized weights from"));
  expect_same(stored_otherwise.run, first.run);
  const Start without = start("/proc/no/such/place");
  EXPECT_THAT(without.note, HasSubstr("were not cached"));
  expect_same(without.run, first.run);
}

TEST_F(WeightCacheGpu, OneThatWasWrittenToIsMadeAnew) {
  const Start first = start(directory_.path());
  change_a_byte();
  const Start second = start(directory_.path());
  EXPECT_THAT(second.note, HasSubstr("wrote quantized weights to"));
  expect_same(second.run, first.run);
  EXPECT_THAT(start(directory_.path()).note, HasSubstr("quantized weights from"));
}

TEST_F(WeightCacheGpu, ChecksFindAChangedByte) {
  const Start first = start(directory_.path());
  restamp_cache(change_a_byte());
  const Start checked = start(directory_.path(), true);
  EXPECT_THAT(checked.note, HasSubstr("1 of the weights in"));
  expect_same(checked.run, first.run);
}

}  // namespace
}  // namespace qshard::test
