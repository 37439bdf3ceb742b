// A run configuration: either refused, or what it was read from can be printed and read again with the same values.
#include "core/run/run_config.h"
#include "core/run/run_options.h"
#include "correctness/fuzz/fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qshard;
  fuzz::expect_handled([&] {
    const RunConfig config = parse_run_config(fuzz::as_text(data, size), "input", {});
    for (const RunOption& option : run_options()) {
      if (config.has(option.key)) fuzz::require(!option.get(config).empty());
    }
    check_run_config(config);
    fuzz::require(config.rows_per_step() > 0);
    engine_options(config, DType::bf16);
  });
  return 0;
}
