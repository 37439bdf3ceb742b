// A trainer_state.json: either refused, or written and read again it stays the same.
#include "core/training/trainer_state.h"
#include "correctness/fuzz/fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qshard;
  fuzz::expect_handled([&] {
    const TrainerState state = parse_trainer_state(fuzz::as_text(data, size), "input");
    const std::string text = python_json(to_json(state));
    fuzz::require(python_json(to_json(parse_trainer_state(text, "own text"))) == text);
  });
  return 0;
}
