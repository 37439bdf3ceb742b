// fuzz_seeds GOLDEN CORPUS: writes first inputs under CORPUS/<target>/, small files in the formats of the golden ones.
#include <cstdio>
#include <filesystem>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/safetensors.h"

namespace {

using namespace qshard;
namespace fs = std::filesystem;

constexpr const char* kWeight = "model.layers.0.self_attn.k_proj.weight";

/// The golden weight's first two blocks, as a file of its own.
void write_small_weight(const SafetensorsFile& golden, const fs::path& path) {
  Weight4bit weight = read_weight4bit(golden, kWeight);
  weight.info.shape = {2, 64};
  weight.codes.resize(64);
  weight.absmax_codes.resize(2);
  weight.nested_absmax.resize(1);
  std::vector<std::pair<std::string, TensorView>> tensors;
  std::vector<Tensor> kept;
  append_weight4bit("w", weight.view(), tensors, kept);
  write_safetensors(path, std::move(tensors));
}

void write_seeds(const fs::path& golden, const fs::path& corpus) {
  const SafetensorsFile model = SafetensorsFile::open(golden / "llama/bnb4bit/model.safetensors");
  for (const char* target : {"safetensors_fuzz", "bnb_checkpoint_fuzz", "quant_state_fuzz", "safetensors_index_fuzz"}) {
    make_directories(corpus / target);
  }
  write_small_weight(model, corpus / "bnb_checkpoint_fuzz/weight");
  write_small_weight(model, corpus / "safetensors_fuzz/weight");
  const TensorView norm = model.tensor("model.norm.weight");
  write_safetensors(corpus / "safetensors_fuzz/norm", {{"model.norm.weight", norm}});
  write_file(corpus / "quant_state_fuzz/nested", quant_state_text(read_weight4bit(model, kWeight).info));
  write_file(corpus / "quant_state_fuzz/plain", quant_state_text({.shape = {128, 256}}));
  write_file(corpus / "safetensors_index_fuzz/index",
             R"({"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00002.safetensors"}})");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: fuzz_seeds GOLDEN CORPUS\n", stderr);
    return static_cast<int>(ExitCode::bad_input);
  }
  try {
    write_seeds(argv[1], argv[2]);
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.code());
  }
}
