#pragma once

#include <cstdint>
#include <string_view>

namespace qshard {

/// How a rank gets the bytes of the other ranks' shards. It changes no bit.
enum class Transport : std::uint8_t {
  automatic,  // peer where every GPU can read every other's memory, else nccl
  peer,       // copies out of the other GPUs' memory; several ranks may share a GPU
  nccl,       // NCCL's collectives; also between hosts; one rank a GPU
  host,       // copies out of host memory that the ranks of a host share, in which a second copy of the shards lies
};

/// "auto", "peer", "nccl", "host".
std::string_view to_string(Transport transport);

}  // namespace qshard
