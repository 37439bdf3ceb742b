#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/json.h"
#include "core/formats/hf_checkpoint.h"
#include "core/model/quantization_options.h"
#include "core/tensor/weight4bit.h"

namespace qshard {

/// A directory of weights that a run quantized, so that the next run need not. Each weight is a file of its own in
/// bitsandbytes' format (core/formats/bnb_checkpoint.h); cache.json names them, when they were written, their hashes,
/// and what they were made from. It depends neither on the number of ranks nor on quant_storage and dtype, which change
/// no bit.

/// Where in `root` the cache of this model and these options lies: one place for each, so that a cache of changed files
/// takes the place of the old one.
std::filesystem::path quantized_cache_place(const std::filesystem::path& root, const HfCheckpoint& checkpoint,
                                            const QuantizationOptions& quantization);

/// What quantized weights depend on, as text: of each weight file its name, inode, size, times of its last changes and
/// the hash of its header; the options; and the format. Equal texts mean equal weights, unless somebody changed bytes
/// of a file behind the file system's back.
std::string quantized_cache_identity(const HfCheckpoint& checkpoint, const QuantizationOptions& quantization);

/// False where a weight file was changed right before `now`: a second change could bear the same time, so that nothing
/// may be kept of what was read.
bool is_settled(const HfCheckpoint& checkpoint, std::chrono::system_clock::time_point now);

/// The hash of all base weights (core/training/base_weights_hash.h), kept beside a cache by the run that read
/// everything. Nothing where none is kept for this identity.
std::optional<std::string> kept_base_hash(const std::filesystem::path& place, std::string_view identity);
/// Keeps it where the cache is there and can be written.
void keep_base_hash(const std::filesystem::path& place, std::string_view identity, std::string_view hash);

class QuantizedCache {
 public:
  /// Nothing where none is there, where it was made from something else, or where a file of it is missing or was
  /// written to, or replaced, since.
  static std::optional<QuantizedCache> open(const std::filesystem::path& place, std::string_view identity);

  [[nodiscard]] bool contains(std::string_view name) const { return weights_.contains(name); }
  /// Of a weight that is contained. storage is u8, dtype that of the tensor it was made from.
  [[nodiscard]] Weight4bitInfo info(std::string_view name) const;
  [[nodiscard]] Weight4bit read(std::string_view name) const;
  /// Brings what read() of a weight that is contained needs into memory. Threads may do so beside each other.
  void read_ahead(std::string_view name) const;
  /// Whether both the weight and `source`, the tensor it was made from, have the bytes of the first load. Reads both.
  [[nodiscard]] bool is_unchanged(std::string_view name, const TensorView& source) const;

 private:
  struct Weight {
    SafetensorsFile file;
    std::string source_hash;
    std::string hash;
  };
  std::map<std::string, Weight, std::less<>> weights_;
};

/// Writes weights into a directory. Several processes may write into one, each its own weights.
class QuantizedCacheWriter {
 public:
  explicit QuantizedCacheWriter(std::filesystem::path directory) : directory_(std::move(directory)) {}

  /// `source`: the tensor that the weight was made from. Throws the errors of AtomicFile.
  void add(const std::string& name, const Weight4bit& weight, const TensorView& source);
  /// What was added, for write_manifest().
  [[nodiscard]] const Json& entries() const { return entries_; }

  /// Writes cache.json for the entries of all writers. With it the directory is a cache.
  static void write_manifest(const std::filesystem::path& directory, std::string_view identity, const Json& entries);

 private:
  std::filesystem::path directory_;
  Json entries_ = Json::object();
};

}  // namespace qshard
