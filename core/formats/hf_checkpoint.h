#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/formats/safetensors.h"
#include "core/model/model_config.h"
#include "core/tensor/tensor.h"
#include "core/tensor/tensor_source.h"

namespace qshard {

/// The `weight_map` of a model.safetensors.index.json: tensor name to file name. `where` names the file. Throws
/// Error(bad_input) naming file and tensor, also for a file name that leads out of the checkpoint's directory.
std::map<std::string, std::string> parse_safetensors_index(std::string_view text, std::string_view where);

/// A Hugging Face model directory: config.json, and model.safetensors or, where that is missing, the files that
/// model.safetensors.index.json names. Files are mapped: a tensor's bytes are read when they are touched.
class HfCheckpoint : public TensorSource {
 public:
  /// Throws Error(bad_input) naming the file, and the tensor where it is about one: missing or invalid files, an index
  /// that names a missing file or a tensor its file lacks, a tensor that two files hold with different values. A stored
  /// output head that differs from the embedding is used even where config.json ties them, as by transformers 5:
  /// config() then says that they are not tied.
  static HfCheckpoint open(const std::filesystem::path& directory);

  /// The same of any model family, for work tensor by tensor: config() is what read_any_hf_config gives.
  static HfCheckpoint open_any_family(const std::filesystem::path& directory);

  /// Puts a tensor in the place of a stored one and of the parts that describe it ("<name>.absmax", ...), for whoever
  /// reads this checkpoint; no file changes.
  void replace(const std::string& name, Tensor tensor);

  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }
  /// The weight files, in the order of their names.
  [[nodiscard]] const std::vector<SafetensorsFile>& files() const { return files_; }

  [[nodiscard]] TensorView tensor(std::string_view name) const override;
  [[nodiscard]] bool contains(std::string_view name) const override { return file_of_tensor_.contains(name); }
  [[nodiscard]] const std::vector<std::string>& names() const override { return names_; }
  [[nodiscard]] std::vector<std::string> names_with_prefix(std::string_view prefix) const override {
    return keys_with_prefix(file_of_tensor_, prefix);
  }
  [[nodiscard]] const std::filesystem::path& file_of(std::string_view name) const override;

 private:
  HfCheckpoint() = default;
  void untie_own_head();
  void open_files();
  void open_index(const std::filesystem::path& path);
  void refuse_tensors_of_two_values() const;

  std::filesystem::path directory_;
  ModelConfig config_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::size_t, std::less<>> file_of_tensor_;  // place in files_
  std::vector<std::string> names_;
  NamedTensors replaced_;
};

}  // namespace qshard
