// A model.safetensors.index.json: either refused, or every file it names lies in its own directory.
#include "core/formats/hf_checkpoint.h"
#include "correctness/fuzz/fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qshard;
  fuzz::expect_handled([&] {
    for (const auto& [tensor, file] : parse_safetensors_index(fuzz::as_text(data, size), "input")) {
      fuzz::require(!file.empty() && file.find('/') == std::string::npos && file != "..");
    }
  });
  return 0;
}
