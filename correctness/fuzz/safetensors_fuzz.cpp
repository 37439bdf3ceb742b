// The header of a safetensors file: either refused, or its tensors fill the file exactly.
#include <span>

#include "core/formats/safetensors.h"
#include "correctness/fuzz/fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qshard;
  fuzz::expect_handled([&] {
    const auto file = std::as_bytes(std::span(data, size));
    const SafetensorsHeader header = parse_safetensors_header(file, "input");
    std::size_t filled = 0;
    for (const auto& [name, entry] : header.entries) {
      fuzz::require(entry.begin >= 8 && entry.begin <= entry.end && entry.end <= size);
      filled += entry.end - entry.begin;
    }
    fuzz::require(filled < size && header.names.size() == header.entries.size());
  });
  return 0;
}
