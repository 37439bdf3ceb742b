#include "core/launch/rank_identity.h"

#include <array>
#include <fstream>

#include <fmt/format.h>
#include <unistd.h>

namespace qshard {

RankIdentity own_identity() {
  constexpr std::size_t kLongest = 256;
  std::array<char, kLongest> name{};
  ::gethostname(name.data(), name.size() - 1);
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return {name.data(), fmt::format("{}/{}", name.data(), boot), ::getpid()};
}

std::string describe(int rank, const RankIdentity& identity) {
  return fmt::format("rank {} (process {} on {})", rank, identity.pid, identity.host);
}

}  // namespace qshard
