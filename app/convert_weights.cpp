#include "app/convert_weights.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/json.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/safetensors.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 6> kPartSuffixes{".absmax",
                                                        ".quant_map",
                                                        ".nested_absmax",
                                                        ".nested_quant_map",
                                                        ".quant_state.bitsandbytes__nf4",
                                                        ".quant_state.bitsandbytes__fp4"};

/// Counts tensors on the live line.
class TensorCounter {
 public:
  TensorCounter(Progress& progress, std::size_t total) : progress_(progress), total_(total) {}

  void next(const std::string& name) { progress_.show(fmt::format("{} of {} tensors: {}", ++done_, total_, name)); }

 private:
  Progress& progress_;
  std::size_t total_;
  std::size_t done_ = 0;
};

ConvertedTensors convert_all(const TensorSource& source, const std::vector<std::string>& names,
                             const ConvertTensor& convert, TensorCounter& counter) {
  ConvertedTensors converted;
  for (const std::string& name : names) {
    counter.next(name);
    convert(source, name, converted);
  }
  return converted;
}

std::map<fs::path, std::vector<std::string>> names_by_file(const HfCheckpoint& checkpoint) {
  std::map<fs::path, std::vector<std::string>> files;
  for (const std::string& name : checkpoint.names()) files[checkpoint.file_of(name).filename()].push_back(name);
  return files;
}

bool holds_weights(const fs::path& file) {
  constexpr std::array<std::string_view, 10> kEnds{".safetensors", ".index.json", ".bin",     ".pt",   ".pth",
                                                   ".ckpt",        ".gguf",       ".msgpack", ".onnx", ".h5"};
  const std::string name = file.filename().string();
  return std::ranges::any_of(kEnds, [&](std::string_view end) { return name.ends_with(end); });
}

void copy_files(const fs::path& from, const fs::path& to) {
  for (const auto& entry : fs::directory_iterator(from)) {
    const fs::path name = entry.path().filename();
    const bool is_left_out = name == "config.json" || name == "adapter_config.json";
    if (!entry.is_regular_file() || holds_weights(name) || is_left_out) continue;
    AtomicFile copy(to / name);
    copy.write(MappedFile::open(entry.path()).bytes());
    copy.commit();
  }
}

/// The tokenizer, its templates, generation_config.json, licences: what is neither weights nor config.json. An
/// adapter_config.json, too, stays behind: transformers would look for its adapter when it opens the new model.
void copy_other_files(const fs::path& from, const fs::path& to) {
  copy_files(from, to);
  const fs::path templates = "additional_chat_templates";
  if (!fs::is_directory(from / templates)) return;
  fs::create_directory(to / templates);
  copy_files(from / templates, to / templates);
}

}  // namespace

std::string_view weight4bit_owner(const TensorSource& source, std::string_view name) {
  for (const std::string_view suffix : kPartSuffixes) {
    if (!name.ends_with(suffix)) continue;
    const std::string_view weight = name.substr(0, name.size() - suffix.size());
    if (source.contains(weight) && has_weight4bit(source, weight)) return weight;
  }
  return {};
}

bool is_weight4bit_part(const TensorSource& source, std::string_view name) {
  return !weight4bit_owner(source, name).empty();
}

void convert_file(const fs::path& input, const fs::path& output, const ConvertTensor& convert, Progress& progress) {
  const SafetensorsFile file = SafetensorsFile::open(input);
  TensorCounter counter(progress, file.names().size());
  const ConvertedTensors converted = convert_all(file, file.names(), convert, counter);
  write_safetensors(output, converted.tensors, file.metadata(), Existing::refused);
}

void convert_model(const HfCheckpoint& checkpoint, const fs::path& output, const std::string& config,
                   const ConvertTensor& convert, Progress& progress) {
  AtomicDirectory directory(output, Existing::refused);
  TensorCounter counter(progress, checkpoint.names().size());
  const auto files = names_by_file(checkpoint);
  Json weight_map = Json::object();
  std::size_t total_size = 0;
  for (const auto& [file, names] : files) {
    const ConvertedTensors converted = convert_all(checkpoint, names, convert, counter);
    write_safetensors(directory.path() / file, converted.tensors);
    for (const auto& [name, view] : converted.tensors) {
      weight_map[name] = file.string();
      total_size += view.bytes.size();
    }
  }
  if (files.size() > 1 || files.begin()->first != "model.safetensors") {
    const Json index{{"metadata", {{"total_size", total_size}}}, {"weight_map", weight_map}};
    write_file(directory.path() / "model.safetensors.index.json", python_json(index, 2) + "\n");
  }
  write_file(directory.path() / "config.json", config);
  copy_other_files(checkpoint.directory(), directory.path());
  directory.commit();
}

}  // namespace qshard
