#include "core/sharding/transport.h"

#include <array>

namespace qshard {

std::string_view to_string(Transport transport) {
  static constexpr std::array<std::string_view, 4> kNames{"auto", "peer", "nccl", "host"};
  return kNames[static_cast<std::size_t>(transport)];
}

}  // namespace qshard
