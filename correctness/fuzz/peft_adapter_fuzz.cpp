// An adapter directory for a small model: either refused, or written and read again it has the same tensors.
#include <algorithm>

#include "core/formats/peft_adapter.h"
#include "correctness/fuzz/fuzzing.h"
#include "correctness/fuzz/sections.h"
#include "correctness/fuzz/small_model.h"

namespace {

using namespace qshard;

void require_same(const NamedTensors& a, const NamedTensors& b) {
  fuzz::require(a.size() == b.size());
  for (const auto& [name, tensor] : a) {
    const auto other = b.find(name);
    fuzz::require(other != b.end() && other->second.shape() == tensor.shape());
    fuzz::require(std::ranges::equal(other->second.bytes(), tensor.bytes()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::MemoryDirectory directory;
  static const ModelConfig model = fuzz::small_config();
  directory.clear();
  const auto sections = fuzz::split_sections(fuzz::as_text(data, size), 2);
  directory.write("adapter_config.json", sections[0]);
  directory.write("adapter_model.safetensors", sections[1]);
  fuzz::expect_handled([&] {
    const PeftAdapter adapter = read_adapter(directory.path(), model);
    write_adapter(directory.path(), adapter.config, adapter.tensors);
    require_same(read_adapter(directory.path(), model).tensors, adapter.tensors);
  });
  return 0;
}
