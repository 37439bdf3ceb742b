#include "core/formats/hf_checkpoint.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/formats/hf_config.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

/// What to do where a directory holds no model as it is read here.
std::string remedy(const fs::path& directory) {
  const std::string name = directory.string();
  for (const char* pickled : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (!is_there(directory / pickled)) continue;
    return fmt::format(
        "{} is pickled, which is not read; convert it with: python -c \"from transformers import AutoModelForCausalLM "
        "as "
        "M, AutoTokenizer as T; M.from_pretrained('{}', dtype='auto').save_pretrained('{}-safetensors'); "
        "T.from_pretrained('{}').save_pretrained('{}-safetensors')\"",
        pickled, name, name, name, name);
  }
  return "weights in another format must be converted to safetensors first";
}

bool are_equal(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::ranges::equal(a.bytes, b.bytes);
}

}  // namespace

std::map<std::string, std::string> parse_safetensors_index(std::string_view text, std::string_view where) {
  const Json json = parse_json(text, where);
  const JsonObject weight_map = JsonObject(json, std::string(where)).object("weight_map");
  std::map<std::string, std::string> files;
  for (const auto& item : weight_map.value().items()) {
    const std::string& file = weight_map.string(item.key());
    if (fs::path(file).filename() != file || file.empty() || file == "." || file == "..") {
      fail_input("{}: \"{}\" is not the name of a file in the same directory", weight_map.where(item.key()), file);
    }
    files[item.key()] = file;
  }
  return files;
}

HfCheckpoint HfCheckpoint::open(const fs::path& directory) {
  HfCheckpoint checkpoint;
  checkpoint.directory_ = directory;
  checkpoint.config_ = read_hf_config(directory / "config.json");
  checkpoint.open_files();
  return checkpoint;
}

HfCheckpoint HfCheckpoint::open_any_family(const fs::path& directory) {
  HfCheckpoint checkpoint;
  checkpoint.directory_ = directory;
  checkpoint.config_ = read_any_hf_config(directory / "config.json");
  checkpoint.open_files();
  return checkpoint;
}

void HfCheckpoint::open_files() {
  const fs::path single = directory_ / "model.safetensors";
  const fs::path index = directory_ / "model.safetensors.index.json";
  if (is_there(single)) {
    files_.push_back(SafetensorsFile::open(single));
    names_ = files_.front().names();
    for (const std::string& name : names_) file_of_tensor_[name] = 0;
  } else if (is_there(index)) {
    open_index(index);
  } else {
    fail_input("{}: there is neither model.safetensors nor model.safetensors.index.json; {}", directory_.string(),
               remedy(directory_));
  }
  untie_own_head();
}

void HfCheckpoint::untie_own_head() {
  constexpr std::string_view kHead = "lm_head.weight";
  constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
  if (!config_.tie_word_embeddings || !contains(kHead) || !contains(kEmbedding)) return;
  config_.tie_word_embeddings = are_equal(tensor(kHead), tensor(kEmbedding));
}

void HfCheckpoint::open_index(const fs::path& path) {
  std::map<std::string, std::vector<std::string>> tensors_of_file;
  for (const auto& [tensor, file] : parse_safetensors_index(read_file(path), path.string())) {
    tensors_of_file[file].push_back(tensor);
  }
  for (const auto& [file, tensors] : tensors_of_file) {
    if (!is_there(directory_ / file)) {
      fail_input("{}: weight_map: tensor \"{}\" should be in {}, which is missing", path.string(), tensors.front(),
                 (directory_ / file).string());
    }
    files_.push_back(SafetensorsFile::open(directory_ / file));
    for (const std::string& tensor : tensors) {
      if (!files_.back().contains(tensor)) {
        fail_input("{}: weight_map: tensor \"{}\" should be in {}, but is not", path.string(), tensor,
                   files_.back().path().string());
      }
      file_of_tensor_[tensor] = files_.size() - 1;
    }
    for (const std::string& name : files_.back().names()) {
      const auto found = file_of_tensor_.find(name);
      if (found != file_of_tensor_.end() && found->second == files_.size() - 1) names_.push_back(name);
    }
  }
  refuse_tensors_of_two_values();
}

void HfCheckpoint::refuse_tensors_of_two_values() const {
  for (std::size_t i = 0; i < files_.size(); ++i) {
    for (const std::string& name : files_[i].names()) {
      const auto found = file_of_tensor_.find(name);
      if (found == file_of_tensor_.end() || found->second == i) continue;
      const SafetensorsFile& meant = files_[found->second];
      if (are_equal(files_[i].tensor(name), meant.tensor(name))) continue;
      fail_input("{}: tensor \"{}\" is in {}, too, with another value; remove the one that is not meant",
                 meant.path().string(), name, files_[i].path().string());
    }
  }
}

void HfCheckpoint::replace(const std::string& name, Tensor tensor) {
  for (const std::string& part : names_with_prefix(name + ".")) {
    file_of_tensor_.erase(file_of_tensor_.find(part));
    std::erase(names_, part);
  }
  replaced_.insert_or_assign(name, std::move(tensor));
}

TensorView HfCheckpoint::tensor(std::string_view name) const {
  const auto replaced = replaced_.find(std::string(name));
  if (replaced != replaced_.end()) return replaced->second.view();
  const auto found = file_of_tensor_.find(name);
  if (found == file_of_tensor_.end()) fail_input("{}: tensor \"{}\" is missing", directory_.string(), name);
  return files_[found->second].tensor(name);
}

const fs::path& HfCheckpoint::file_of(std::string_view name) const {
  const auto found = file_of_tensor_.find(name);
  return found == file_of_tensor_.end() ? directory_ : files_[found->second].path();
}

}  // namespace qshard
