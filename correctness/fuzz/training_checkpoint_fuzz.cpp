// A run's checkpoint of a small model, with checksums that fit or, where the first section has a text, that text:
// either refused, or an engine takes it and gives the same adapter and optimizer back.
#include <algorithm>
#include <array>

#include "core/base/xxh64.h"
#include "core/training/training_checkpoint.h"
#include "correctness/fuzz/fuzzing.h"
#include "correctness/fuzz/sections.h"
#include "correctness/fuzz/small_model.h"
#include "reference/sharded_engine.h"

namespace {

using namespace qshard;

std::unique_ptr<TrainingEngine> make_small_engine() {
  const fuzz::MemoryDirectory directory;
  directory.write("config.json", fuzz::small_config().text);
  fuzz::write_small_model(directory.path() / "model.safetensors", false, false);
  return reference::make_sharded_engine(HfCheckpoint::open(directory.path()), fuzz::small_options(), nullptr);
}

void require_same(const NamedTensors& given, const NamedTensors& kept) {
  fuzz::require(given.size() == kept.size());
  for (const auto& [name, tensor] : given) {
    const auto found = kept.find(name);
    fuzz::require(found != kept.end() && found->second.shape() == tensor.shape());
    if (found->second.dtype() != tensor.dtype()) continue;  // taken in the engine's own
    fuzz::require(std::ranges::equal(found->second.bytes(), tensor.bytes()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::unique_ptr<TrainingEngine> engine = make_small_engine();
  static const fuzz::MemoryDirectory directory;
  const std::filesystem::path path = directory.path() / "checkpoint-3";
  std::filesystem::create_directories(path);
  const auto sections = fuzz::split_sections(fuzz::as_text(data, size), 4);  // sums, state, optimizer, adapter
  constexpr std::array kNames{"trainer_state.json", "optimizer.safetensors", "adapter_model.safetensors"};
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    directory.write(std::string("checkpoint-3/") + kNames[i], sections[i + 1]);
  }
  std::string sums = sections[0];
  if (sums.empty()) {
    for (std::size_t i = 0; i < kNames.size(); ++i) {
      sums += fmt::format("{:016x}  {}\n", xxh64(std::as_bytes(std::span(sections[i + 1]))), kNames[i]);
    }
  }
  directory.write("checkpoint-3/checksums.xxh64", sums);
  fuzz::expect_handled([&] {
    const TrainingCheckpoint checkpoint = read_checkpoint(path);
    fuzz::require(checkpoint.state.global_step == 3 && is_whole(path));
    engine->load_adapter(checkpoint.adapter);
    engine->load_optimizer_state(checkpoint.optimizer);
    require_same(checkpoint.adapter, engine->adapter());
    require_same(checkpoint.optimizer, engine->optimizer_state());
  });
  return 0;
}
