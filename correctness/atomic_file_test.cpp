#include "core/base/atomic_file.h"

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <string>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/file.h"
#include "correctness/expect_error.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

std::set<std::string> names_in(const std::filesystem::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) names.insert(entry.path().filename());
  return names;
}

/// This process has at most so much of the resource until this is destroyed: RLIMIT_FSIZE is as a full disk.
class ResourceLimit {
 public:
  ResourceLimit(__rlimit_resource resource, rlim_t most) : resource_(resource) {
    ::getrlimit(resource_, &before_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{most, before_.rlim_max};
    ::setrlimit(resource_, &limit);
  }
  ResourceLimit(const ResourceLimit&) = delete;
  ResourceLimit& operator=(const ResourceLimit&) = delete;
  ~ResourceLimit() {
    ::setrlimit(resource_, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  __rlimit_resource resource_;
  rlimit before_{};
  sighandler_t handler_ = SIG_DFL;
};

TEST(AtomicFile, ReplacesOnlyAtCommit) {
  const TemporaryDirectory directory;
  write_file(directory / "a", "old");
  AtomicFile file(directory / "a");
  file.write("new");
  EXPECT_EQ(read_file(directory / "a"), "old");
  file.commit();
  EXPECT_EQ(read_file(directory / "a"), "new");
  EXPECT_EQ(names_in(directory.path()), std::set<std::string>{"a"});
}

TEST(AtomicFile, WithoutCommitNothingChanges) {
  const TemporaryDirectory directory;
  write_file(directory / "a", "old");
  { AtomicFile(directory / "a").write("new"); }
  EXPECT_EQ(read_file(directory / "a"), "old");
  EXPECT_EQ(names_in(directory.path()), std::set<std::string>{"a"});
}

TEST(AtomicFile, AFullDiskIsOutOfResourcesAndLosesNothing) {
  const TemporaryDirectory directory;
  write_file(directory / "a", "old");
  {
    const ResourceLimit limit(RLIMIT_FSIZE, 1000);
    expect_error(ExitCode::out_of_resources, {(directory / "a").string(), "too large"},
                 [&] { write_file(directory / "a", std::string(2000, 'x')); });
  }
  EXPECT_EQ(read_file(directory / "a"), "old");
  EXPECT_EQ(names_in(directory.path()), std::set<std::string>{"a"});
}

TEST(AtomicFile, APlaceThatCannotBeWrittenIsBadInput) {
  const TemporaryDirectory directory;
  const std::string path = (directory / "missing/a").string();
  expect_bad_input({path, "No such file"}, [&] { write_file(path, ""); });
  write_file(directory / "file", "");
  expect_bad_input({"file/a", "Not a directory"}, [&] { write_file(directory / "file/a", ""); });
  expect_bad_input({"file/a", "Not a directory"}, [&] { AtomicDirectory(directory / "file/a"); });
}

TEST(AtomicDirectory, AppearsWholeAtCommit) {
  const TemporaryDirectory directory;
  {
    AtomicDirectory made(directory / "parent/out/");
    write_file(made.path() / "a", "text");
    EXPECT_FALSE(std::filesystem::exists(directory / "parent/out"));
    made.commit();
  }
  EXPECT_EQ(read_file(directory / "parent/out/a"), "text");
  EXPECT_EQ(names_in(directory / "parent"), std::set<std::string>{"out"});
}

TEST(AtomicDirectory, ReplacesAnOlderOne) {
  const TemporaryDirectory directory;
  make_directories(directory / "out");
  write_file(directory / "out/old", "");
  {
    AtomicDirectory made(directory / "out");
    write_file(made.path() / "new", "");
    made.commit();
  }
  EXPECT_EQ(names_in(directory / "out"), std::set<std::string>{"new"});
  EXPECT_EQ(names_in(directory.path()), std::set<std::string>{"out"});
}

TEST(AtomicDirectory, WithoutCommitNothingChanges) {
  const TemporaryDirectory directory;
  make_directories(directory / "out");
  write_file(directory / "out/old", "");
  {
    const AtomicDirectory made(directory / "out");
    write_file(made.path() / "new", "");
  }
  EXPECT_EQ(names_in(directory / "out"), std::set<std::string>{"old"});
  EXPECT_EQ(names_in(directory.path()), std::set<std::string>{"out"});
}

/// What comes to the destination between the constructor and commit() stays.
void expect_others_stay() {
  const TemporaryDirectory directory;
  {
    AtomicFile file(directory / "file", Existing::refused);
    file.write("late");
    AtomicDirectory made(directory / "made", Existing::refused);
    write_file(made.path() / "late", "");
    std::ofstream(directory / "file") << "first";
    make_directories(directory / "made");
    std::ofstream(directory / "made/first") << "";
    expect_bad_input({(directory / "file").string(), "another process"}, [&] { file.commit(); });
    expect_bad_input({(directory / "made").string(), "another process"}, [&] { made.commit(); });
    AtomicDirectory over_file(directory / "other", Existing::refused);
    std::ofstream(directory / "other") << "first";
    expect_bad_input({(directory / "other").string(), "another process"}, [&] { over_file.commit(); });
  }
  EXPECT_EQ(read_file(directory / "file"), "first");
  EXPECT_EQ(names_in(directory / "made"), std::set<std::string>{"first"});
  EXPECT_EQ(names_in(directory.path()), (std::set<std::string>{"file", "made", "other"}));
  for (const auto* name : {"file", "made"}) {
    expect_bad_input({name, "already there"}, [&] { AtomicFile(directory / name, Existing::refused); });
    expect_bad_input({name, "already there"}, [&] { AtomicDirectory(directory / name, Existing::refused); });
  }
}

void expect_new_ones_appear() {
  const TemporaryDirectory directory;
  {
    AtomicFile file(directory / "file", Existing::refused);
    file.write("text");
    file.commit();
    AtomicDirectory made(directory / "made", Existing::refused);
    write_file(made.path() / "inside", "");
    made.commit();
  }
  EXPECT_EQ(read_file(directory / "file"), "text");
  EXPECT_EQ(names_in(directory / "made"), std::set<std::string>{"inside"});
  EXPECT_EQ(names_in(directory.path()), (std::set<std::string>{"file", "made"}));
}

/// From here on renameat2 fails in this process as it does on NFS. False where the system does not let that be made.
bool refuse_renameat2() {
  sock_filter program[]{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat2, 0, 1),
                        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
                        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST(AtomicFile, WhatCameMeanwhileIsNotReplacedWhereThatIsRefused) {
  expect_others_stay();
  expect_new_ones_appear();
}

TEST(AtomicFile, TheSameOnAFileSystemWhoseRenamesAlwaysReplace) {
  constexpr int kCannotBeMade = 77;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (!refuse_renameat2()) ::_exit(kCannotBeMade);
    EXPECT_NO_THROW(expect_others_stay());
    EXPECT_NO_THROW(expect_new_ones_appear());
    ::_exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kCannotBeMade) GTEST_SKIP() << "no seccomp filter can be set here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(AtomicDirectory, WithTheLastDescriptorNothingStays) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the undefined-behaviour sanitizer beside it needs a descriptor to see of what type an object is";
#endif
  const TemporaryDirectory directory;
  {
    auto made = std::make_unique<AtomicDirectory>(directory / "out");
    write_file(made->path() / "inside", "");
    const int lowest = ::dup(STDERR_FILENO);
    ::close(lowest);
    const ResourceLimit limit(RLIMIT_NOFILE, static_cast<rlim_t>(lowest));
    expect_error(ExitCode::out_of_resources, {"other", "open files"}, [&] { AtomicDirectory(directory / "other"); });
    made.reset();
  }
  EXPECT_EQ(names_in(directory.path()), std::set<std::string>());
}

bool is_any(std::string_view) {
  return true;
}

/// Runs `work` in a process that then kills itself, as kill -9 does.
template <typename Work>
void in_killed_process(const Work& work) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    work();
    ::kill(::getpid(), SIGKILL);
  }
  ::waitpid(child, nullptr, 0);
}

TEST(AtomicFile, LeftoversOfKilledProcessesAreRemovedAndOthersStay) {
  const TemporaryDirectory directory;
  in_killed_process([&] {
    AtomicFile file(directory / "a");
    const AtomicDirectory made(directory / "b");
    write_file(made.path() / "inside", "");
    ::kill(::getpid(), SIGKILL);  // before the objects end
  });
  EXPECT_EQ(names_in(directory.path()).size(), 2U);
  const AtomicFile own(directory / "c");
  write_file(directory / "d.tmp-", "");
  write_file(directory / "e.tmp-12x", "");
  write_file(directory / "theirs.tmp-999999999", "");
  remove_leftovers(directory.path(), [](std::string_view name) { return name != "theirs"; });
  EXPECT_EQ(names_in(directory.path()), (std::set<std::string>{"c.tmp-" + std::to_string(::getpid()), "d.tmp-",
                                                               "e.tmp-12x", "theirs.tmp-999999999"}));
  remove_leftovers(directory / "missing", is_any);
}

TEST(AtomicFile, TheLockTellsALeftoverWhoseNumberAnotherProcessHas) {
  const TemporaryDirectory directory;
  const std::string alive = std::to_string(::getppid());
  write_file(directory / ("a.tmp-" + alive), "");
  make_directories(directory / ("b.tmp-" + alive));
  std::filesystem::create_symlink(directory / "nowhere", directory / ("c.tmp-" + alive));
  const AtomicFile held(directory / "d");
  const AtomicDirectory held_too(directory / "e");
  remove_leftovers(directory.path(), is_any);
  const std::string own = std::to_string(::getpid());
  EXPECT_EQ(names_in(directory.path()), (std::set<std::string>{"c.tmp-" + alive, "d.tmp-" + own, "e.tmp-" + own}));
}

TEST(AtomicFile, LeftoversOfOneDestination) {
  const TemporaryDirectory directory;
  for (const auto* name : {"a.tmp-999999999", "b.tmp-999999999"}) write_file(directory / name, "");
  remove_leftovers_of(directory / "a");
  EXPECT_EQ(names_in(directory.path()), std::set<std::string>{"b.tmp-999999999"});
}

TEST(AtomicFile, WhatIsNoRegularFileIsNotReplaced) {
  const TemporaryDirectory directory;
  ASSERT_EQ(::mkfifo((directory / "pipe").c_str(), 0600), 0);
  make_directories(directory / "directory");
  for (const auto* name : {"pipe", "directory"}) {
    expect_bad_input({name, "no regular file"}, [&] { write_file(directory / name, "new"); });
  }
  expect_bad_input({"pipe", "no directory"}, [&] { AtomicDirectory(directory / "pipe"); });
  EXPECT_EQ(names_in(directory.path()), (std::set<std::string>{"directory", "pipe"}));
}

TEST(AtomicFile, ALinkToNothingIsFollowed) {
  const TemporaryDirectory directory;
  std::filesystem::create_symlink("second", directory / "first");
  std::filesystem::create_symlink(directory / "file", directory / "second");
  write_file(directory / "first", "new");
  EXPECT_EQ(read_file(directory / "file"), "new");
  EXPECT_TRUE(std::filesystem::is_symlink(directory / "first"));
  EXPECT_TRUE(std::filesystem::is_symlink(directory / "second"));
  std::filesystem::create_symlink("place", directory / "link");
  make_directories(directory / "link");
  EXPECT_TRUE(std::filesystem::is_directory(directory / "place"));
  std::filesystem::create_symlink("round", directory / "round");
  for (const auto& write : {+[](const std::filesystem::path& path) { write_file(path, "new"); },
                            +[](const std::filesystem::path& path) { make_directories(path); }}) {
    expect_bad_input({"round", "circle"}, [&] { write(directory / "round"); });
  }
}

TEST(AtomicFile, ALinkStaysAndItsFileIsReplaced) {
  const TemporaryDirectory directory;
  write_file(directory / "file", "old");
  std::filesystem::create_symlink("file", directory / "link");
  write_file(directory / "link", "new");
  EXPECT_TRUE(std::filesystem::is_symlink(directory / "link"));
  EXPECT_EQ(read_file(directory / "file"), "new");
}

}  // namespace
}  // namespace qshard
