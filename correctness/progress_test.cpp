#include "core/base/progress.h"

#include <gtest/gtest.h>

#include "core/base/file.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

TEST(Progress, WritesPlainLinesWhereThereIsNoTerminal) {
  const TemporaryDirectory directory;
  std::FILE* file = std::fopen((directory / "log").c_str(), "w");
  {
    Progress progress(file);
    EXPECT_FALSE(progress.live());
    progress.show("live");
    progress.print("line");
  }
  std::fclose(file);
  EXPECT_EQ(read_file(directory / "log"), "line\n");
}

TEST(Progress, FormatsDurationsAndBytes) {
  EXPECT_EQ(format_duration(0.44), "0.4 s");
  EXPECT_EQ(format_duration(12.3), "12 s");
  EXPECT_EQ(format_duration(59.7), "1 min 00 s");
  EXPECT_EQ(format_duration(200), "3 min 20 s");
  EXPECT_EQ(format_duration(7500), "2 h 05 min");
  EXPECT_EQ(format_duration(-1), "unknown");
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(3.5 * 1024 * 1024), "3.5 MiB");
}

TEST(Progress, KnowsThePeakOfThisProcess) {
  EXPECT_GT(process_peak_bytes(), 1024.0 * 1024);
}

}  // namespace
}  // namespace qshard
