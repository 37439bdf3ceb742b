#include "core/training/whole_checkpoints.h"

#include <fstream>
#include <thread>

#include <gtest/gtest.h>

#include "core/base/atomic_file.h"
#include "core/base/file.h"
#include "core/training/training_checkpoint.h"
#include "correctness/fake_engine.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;
using std::chrono::system_clock;

void change_byte(const fs::path& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const auto byte = static_cast<char>(file.get());
  file.seekp(0);
  file.put(static_cast<char>(byte ^ 1));
}

class WholeCheckpointsTest : public testing::Test {
 protected:
  WholeCheckpointsTest() {
    FakeEngine engine;
    TrainerState state;
    state.global_step = 1;
    save_checkpoint(directory_.path(), state, engine, [](const fs::path& directory, const NamedTensors&) {
      write_file(directory / "adapter_model.safetensors", "any");
    });
  }

  TemporaryDirectory directory_;
  fs::path checkpoint_ = checkpoint_path(directory_.path(), 1);
  WholeCheckpoints whole_;
};

TEST_F(WholeCheckpointsTest, AChangeRightAfterItWasReadIsSeen) {
  ASSERT_TRUE(whole_.contains(checkpoint_));
  change_byte(checkpoint_ / "optimizer.safetensors");  // perhaps within one tick of the file system's clock
  EXPECT_FALSE(whole_.contains(checkpoint_));
  change_byte(checkpoint_ / "optimizer.safetensors");
  EXPECT_TRUE(whole_.contains(checkpoint_));
}

TEST_F(WholeCheckpointsTest, AChangeToARememberedOneIsSeenWhateverTimeItClaims) {
  const fs::path file = checkpoint_ / "optimizer.safetensors";
  const FileStamp last = file_stamp(checkpoint_ / "checksums.xxh64").value();
  while (!last.is_settled(system_clock::now())) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ASSERT_TRUE(whole_.contains(checkpoint_));
  ASSERT_TRUE(whole_.contains(checkpoint_));
  const auto time = fs::last_write_time(file);
  change_byte(file);
  fs::last_write_time(file, time);
  EXPECT_FALSE(whole_.contains(checkpoint_));
  change_byte(file);
  EXPECT_TRUE(whole_.contains(checkpoint_));
  fs::remove(file);
  EXPECT_FALSE(whole_.contains(checkpoint_));
}

TEST(FileStamp, SettlesTwoSecondsAfterAChange) {
  FileStamp stamp;
  stamp.changed = 1'700'000'000'000'000'000;
  const system_clock::time_point change{std::chrono::seconds(1'700'000'000)};
  EXPECT_FALSE(stamp.is_settled(change - std::chrono::seconds(5)));
  EXPECT_FALSE(stamp.is_settled(change + std::chrono::milliseconds(1900)));
  EXPECT_TRUE(stamp.is_settled(change + std::chrono::milliseconds(2100)));
}

}  // namespace
}  // namespace qshard
