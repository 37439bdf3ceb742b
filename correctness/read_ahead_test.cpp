// Pages of a mapped file that are read before somebody needs them.
#include "core/base/read_ahead.h"

#include <cstddef>
#include <fstream>
#include <string>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "core/base/file.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

/// Of this thread, while it reads a byte of every page.
long page_faults_of_reading(std::span<const std::byte> mapped) {
  rusage before{};
  rusage after{};
  std::byte sum{};
  ::getrusage(RUSAGE_THREAD, &before);
  for (std::size_t i = 0; i < mapped.size(); i += 4096) sum ^= mapped[i];
  ::getrusage(RUSAGE_THREAD, &after);
  EXPECT_EQ(sum, std::byte{0});
  return after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt;
}

// Without reading ahead it is about ten faults, fewer where the system maps larger pieces of the file at once.
TEST(ReadAhead, WhoReadsAPartAfterwardsWaitsForNoPage) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's own memory has page faults, too";
#endif
  constexpr std::size_t kPart = std::size_t{200} * 4096;
  const TemporaryDirectory directory;
  std::ofstream(directory / "file") << std::string(2 * kPart, 'x');
  const MappedFile file = MappedFile::open(directory / "file");
  read_ahead(file.bytes().subspan(kPart + 5, kPart - 5));
  EXPECT_LT(page_faults_of_reading(file.bytes().subspan(kPart)), 3);
}

}  // namespace
}  // namespace qshard
