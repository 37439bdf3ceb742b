// fuzz_seeds GOLDEN CORPUS: writes first inputs under CORPUS/<target>/, small files in the formats of the golden ones.
#include <cstdio>
#include <filesystem>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/peft_adapter.h"
#include "core/formats/safetensors.h"
#include "core/training/training_checkpoint.h"
#include "correctness/fuzz/sections.h"
#include "correctness/fuzz/small_model.h"
#include "reference/sharded_engine.h"

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

std::string small_model(bool in_4bit, bool nested) {
  const fuzz::MemoryDirectory directory;
  fuzz::write_small_model(directory.path() / "model", in_4bit, nested);
  return read_file(directory.path() / "model");
}

void write_model_directories(const fs::path& corpus) {
  const ModelConfig config = fuzz::small_config();
  write_file(corpus / "dense", fuzz::join_sections({config.text, "", "", small_model(false, false)}));
  for (const bool nested : {false, true}) {
    QuantizationOptions quantization;
    quantization.double_quant = nested;
    const std::string text = config_text(config, quantization, DType::f32);
    write_file(corpus / (nested ? "nested" : "plain"), fuzz::join_sections({text, "", "", small_model(true, nested)}));
  }
  const fuzz::MemoryDirectory directory;
  fuzz::write_small_model(directory.path() / "model", false, false);
  const SafetensorsFile model = SafetensorsFile::open(directory.path() / "model");
  Json map = Json::object();
  for (const std::string& name : model.names()) map[name] = "model-00001-of-00002.safetensors";
  const std::string index = Json{{"weight_map", map}}.dump();
  write_file(corpus / "indexed", fuzz::join_sections({config.text, index, "", small_model(false, false)}));
}

/// The files of a run's checkpoint and of its adapter, from an engine of the small model.
void write_checkpoints(const fs::path& corpus) {
  const fuzz::MemoryDirectory directory;
  const fs::path& path = directory.path();
  write_file(path / "config.json", fuzz::small_config().text);
  fuzz::write_small_model(path / "model.safetensors", false, false);
  const auto engine = reference::make_sharded_engine(HfCheckpoint::open(path), fuzz::small_options(), nullptr);
  AdapterConfig adapter;
  adapter.r = 1;
  adapter.lora_alpha = 1;
  adapter.target_modules = {"all-linear"};
  TrainerState state;
  state.global_step = 3;
  state.identity.rows_per_step = 1;
  save_checkpoint(path, state, *engine,
                  [&](const fs::path& to, const NamedTensors& tensors) { write_adapter(to, adapter, tensors); });
  const auto text = [&](const char* name) { return read_file(path / "checkpoint-3" / name); };
  write_file(corpus / "training_checkpoint_fuzz/small",
             fuzz::join_sections(
                 {"", text("trainer_state.json"), text("optimizer.safetensors"), text("adapter_model.safetensors")}));
  write_file(corpus / "trainer_state_fuzz/small", text("trainer_state.json"));
  write_file(corpus / "peft_adapter_fuzz/small",
             fuzz::join_sections({text("adapter_config.json"), text("adapter_model.safetensors")}));
}

void write_rows(const fs::path& path) {
  const std::vector<std::int32_t> ids{1, 2, 3, 4, 5, 6, 7, 8, 9};
  const std::vector<std::int32_t> labels{-100, 2, 3, -100, -100, 6, 7, 8, 9};
  const std::vector<std::int64_t> offsets{0, 3, 3, 9};
  const auto view = [](DType dtype, const auto& values) {
    return TensorView{dtype, {std::ssize(values)}, std::as_bytes(std::span(values))};
  };
  write_safetensors(path, {{"input_ids", view(DType::i32, ids)},
                           {"labels", view(DType::i32, labels)},
                           {"offsets", view(DType::i64, offsets)}});
}

void write_seeds(const fs::path& golden, const fs::path& corpus) {
  const SafetensorsFile model = SafetensorsFile::open(golden / "llama/bnb4bit/model.safetensors");
  for (const char* target : {"safetensors_fuzz", "bnb_checkpoint_fuzz", "quant_state_fuzz", "safetensors_index_fuzz",
                             "model_directory_fuzz", "training_checkpoint_fuzz", "trainer_state_fuzz",
                             "peft_adapter_fuzz", "metrics_fuzz", "prepared_dataset_fuzz"}) {
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
  write_model_directories(corpus / "model_directory_fuzz");
  write_checkpoints(corpus);
  write_rows(corpus / "prepared_dataset_fuzz/rows");
  write_file(corpus / "metrics_fuzz/rows",
             "{\"context\": {}}\n{\"step\": 0, \"eval_loss\": 1.0}\n{\"step\": 5, \"loss\": 2}\n{\"step\": 6, \"lo");
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
