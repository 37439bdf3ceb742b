// The JSON of a 4-bit weight's quant_state: either refused, or written and read again it is the same.
#include "core/formats/bnb_checkpoint.h"
#include "correctness/fuzz/fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qshard;
  fuzz::expect_handled([&] {
    const std::string text = quant_state_text(parse_quant_state(fuzz::as_text(data, size), "input"));
    fuzz::require(quant_state_text(parse_quant_state(text, "input")) == text);
  });
  return 0;
}
