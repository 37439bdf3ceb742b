#include "core/base/file.h"

#include <fstream>
#include <utility>

#include "correctness/expect_error.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

void put(const std::filesystem::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST(File, MapsAndReadsTheSameBytes) {
  const TemporaryDirectory directory;
  const std::string text("with\0zero\xFF", 10);
  put(directory / "a", text);
  EXPECT_EQ(text_of(MappedFile::open(directory / "a")), text);
  EXPECT_EQ(read_file(directory / "a"), text);
}

TEST(File, AnEmptyFileIsEmpty) {
  const TemporaryDirectory directory;
  put(directory / "a", "");
  EXPECT_TRUE(MappedFile::open(directory / "a").bytes().empty());
  EXPECT_EQ(read_file(directory / "a"), "");
}

TEST(File, AMovedMappingStaysValid) {
  const TemporaryDirectory directory;
  put(directory / "a", "first");
  put(directory / "b", "second");
  MappedFile first = MappedFile::open(directory / "a");
  MappedFile second = MappedFile::open(directory / "b");
  second = std::move(first);
  const MappedFile third(std::move(second));
  EXPECT_EQ(text_of(third), "first");
}

TEST(File, UnreadablePathsAreNamedWithTheReason) {
  const TemporaryDirectory directory;
  const std::string missing = (directory / "missing").string();
  expect_bad_input({missing, "No such file"}, [&] { MappedFile::open(missing); });
  expect_bad_input({missing, "No such file"}, [&] { read_file(missing); });
  expect_bad_input({directory.path().string(), "directory"}, [&] { MappedFile::open(directory.path()); });
  expect_bad_input({directory.path().string(), "directory"}, [&] { read_file(directory.path()); });
  expect_bad_input({"/dev/null", "regular file"}, [&] { MappedFile::open("/dev/null"); });
}

TEST(File, ADirectoryCannotBeMadeInsideAFile) {
  const TemporaryDirectory directory;
  put(directory / "a", "");
  expect_bad_input({"a/b", "Not a directory"}, [&] { make_directories(directory / "a/b"); });
  make_directories(directory / "x/y/z");
  make_directories(directory / "x/y/z");
  EXPECT_TRUE(std::filesystem::is_directory(directory / "x/y/z"));
}

}  // namespace
}  // namespace qshard
