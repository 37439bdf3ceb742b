// A whole model directory: config.json, an index or none, one or two weight files. Either refused, or an engine made
// from it evaluates a row without reading or writing what is not its own.
#include "core/formats/checkpoint_check.h"
#include "correctness/fuzz/fuzzing.h"
#include "correctness/fuzz/sections.h"
#include "correctness/fuzz/small_model.h"
#include "reference/sharded_engine.h"

namespace {

/// The row goes through every layer; the config may ask for anything that the files hold.
void evaluate(const qshard::HfCheckpoint& checkpoint) {
  using namespace qshard;
  const auto engine = reference::make_sharded_engine(checkpoint, fuzz::small_options(), nullptr);
  TokenBatch batch;
  batch.input_ids = {0, 1, 2};
  batch.labels = {0, 1, 2};
  batch.offsets = {0, 3};
  batch.row_ids = {0};
  engine->evaluate({batch});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qshard;
  static const fuzz::MemoryDirectory directory;
  directory.clear();
  const auto sections = fuzz::split_sections(fuzz::as_text(data, size), 4);  // config, index, second file, first file
  directory.write("config.json", sections[0]);
  directory.write(sections[1].empty() ? "model.safetensors" : "model-00001-of-00002.safetensors", sections[3]);
  if (!sections[1].empty()) {
    directory.write("model.safetensors.index.json", sections[1]);
    directory.write("model-00002-of-00002.safetensors", sections[2]);
  }
  fuzz::expect_handled([&] {
    const HfCheckpoint checkpoint = HfCheckpoint::open(directory.path());
    check_checkpoint(checkpoint);
    evaluate(checkpoint);
  });
  return 0;
}
