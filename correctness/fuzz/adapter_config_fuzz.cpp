// An adapter_config.json: either refused, or written and read again it is the same.
#include "core/formats/adapter_config.h"
#include "correctness/fuzz/fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qshard;
  fuzz::expect_handled([&] {
    const std::string text = adapter_config_text(parse_adapter_config(fuzz::as_text(data, size), "input"));
    fuzz::require(adapter_config_text(parse_adapter_config(text, "input")) == text);
  });
  return 0;
}
