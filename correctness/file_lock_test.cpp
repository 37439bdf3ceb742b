#include "core/base/file_lock.h"

#include <csignal>

#include <sys/wait.h>
#include <unistd.h>

#include "correctness/expect_error.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

class FileLocks : public testing::Test {
 protected:
  [[nodiscard]] bool is_free() const { return FileLock::try_take(path_).has_value(); }

  TemporaryDirectory directory_;
  std::filesystem::path path_ = directory_ / "lock";
};

TEST_F(FileLocks, OneHolderAtATime) {
  std::optional<FileLock> lock = FileLock::try_take(path_);
  EXPECT_TRUE(lock.has_value());
  EXPECT_FALSE(is_free());
  lock.reset();
  EXPECT_TRUE(is_free());
}

TEST_F(FileLocks, AMovedLockIsHeldOn) {
  std::optional<FileLock> lock;
  {
    std::optional<FileLock> first = FileLock::try_take(path_);
    lock = std::move(first);
  }
  EXPECT_TRUE(lock.has_value());
  EXPECT_FALSE(is_free());
}

TEST_F(FileLocks, AProcessThatIsKilledHoldsNoLock) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t holder = ::fork();
  ASSERT_GE(holder, 0);
  if (holder == 0) {
    const auto lock = FileLock::try_take(path_);
    const char taken = lock ? 1 : 0;
    if (::write(ready[1], &taken, 1) == 1) ::pause();
    ::_exit(1);
  }
  char taken = 0;
  ASSERT_EQ(::read(ready[0], &taken, 1), 1);
  EXPECT_EQ(taken, 1);
  EXPECT_FALSE(is_free());
  ::kill(holder, SIGKILL);
  ::waitpid(holder, nullptr, 0);
  EXPECT_TRUE(is_free());
  for (const int end : ready) ::close(end);
}

TEST_F(FileLocks, AFileThatCannotBeMadeIsNamed) {
  const std::filesystem::path nowhere = directory_ / "none" / "lock";
  expect_bad_input({nowhere.string(), "cannot write"}, [&] { FileLock::try_take(nowhere); });
}

}  // namespace
}  // namespace qshard
