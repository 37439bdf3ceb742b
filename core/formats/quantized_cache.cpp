#include "core/formats/quantized_cache.h"

#include <cstring>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/file_stamp.h"
#include "core/base/read_ahead.h"
#include "core/base/xxh64.h"
#include "core/formats/bnb_checkpoint.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;

constexpr int kFormat = 2;  // raised where the files, or the bits that quantize() gives, change
constexpr std::string_view kManifest = "cache.json";
constexpr std::string_view kBaseHash = "base_weights_hash.json";

std::string hex(std::span<const std::byte> bytes) {
  return fmt::format("{:016x}", xxh64(bytes));
}

std::string hex(std::string_view text) {
  return hex(std::as_bytes(std::span(text)));
}

Json to_json(const QuantizationOptions& quantization) {
  return {{"quant_type", to_string(quantization.quant_type)},
          {"blocksize", quantization.blocksize},
          {"double_quant", quantization.double_quant}};
}

std::span<const std::byte> header_of(const SafetensorsFile& file) {
  std::uint64_t length = 0;
  std::memcpy(&length, file.bytes().data(), sizeof length);
  return file.bytes().first(sizeof length + length);
}

/// Which file this is and when it was changed last: equal unless it was written to or another is in its place.
Json stamp_of(const fs::path& path) {
  const FileStamp stamp = file_stamp(path).value_or(FileStamp{});
  return {{"inode", stamp.inode}, {"size", stamp.size}, {"modified", stamp.modified}, {"changed", stamp.changed}};
}

/// Of all that the file holds: header, codes, scales.
std::string hash_of(const SafetensorsFile& file) {
  return hex(file.bytes());
}

/// Of a kept hash, so that a changed byte of it is seen.
std::string check_of(std::string_view identity, std::string_view hash) {
  return hex(fmt::format("{}\n{}", identity, hash));
}

}  // namespace

fs::path quantized_cache_place(const fs::path& root, const HfCheckpoint& checkpoint,
                               const QuantizationOptions& quantization) {
  const fs::path model = fs::weakly_canonical(checkpoint.directory());
  const std::string key = model.string() + "\n" + to_json(quantization).dump();
  return root / fmt::format("{}-{}", model.filename().string(), hex(key));
}

std::string quantized_cache_identity(const HfCheckpoint& checkpoint, const QuantizationOptions& quantization) {
  Json files = Json::array();
  for (const SafetensorsFile& file : checkpoint.files()) {
    files.push_back({{"name", file.path().filename().string()},
                     {"stamp", stamp_of(file.path())},
                     {"header", hex(header_of(file))}});
  }
  return Json{{"format", kFormat}, {"quantization", to_json(quantization)}, {"files", std::move(files)}}.dump();
}

bool is_settled(const HfCheckpoint& checkpoint, std::chrono::system_clock::time_point now) {
  for (const SafetensorsFile& file : checkpoint.files()) {
    const std::optional<FileStamp> stamp = file_stamp(file.path());
    if (!stamp || !stamp->is_settled(now)) return false;
  }
  return true;
}

std::optional<std::string> kept_base_hash(const fs::path& place, std::string_view identity) {
  try {
    const fs::path path = place / kBaseHash;
    const Json kept = parse_json(read_file(path), path.string());
    const JsonObject fields(kept, path.string());
    const std::string& hash = fields.string("hash");
    const bool whole = fields.string("check") == check_of(identity, hash);
    return whole && fields.string("identity") == identity ? std::optional(hash) : std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  }
}

void keep_base_hash(const fs::path& place, std::string_view identity, std::string_view hash) {
  const Json kept{{"identity", identity}, {"hash", hash}, {"check", check_of(identity, hash)}};
  try {
    write_file(place / kBaseHash, python_json(kept) + "\n");
  } catch (const Error&) {
    return;  // the next run reads everything again
  }
}

std::optional<QuantizedCache> QuantizedCache::open(const fs::path& place, std::string_view identity) {
  try {
    const fs::path path = place / kManifest;
    const Json manifest = parse_json(read_file(path), path.string());
    const JsonObject root(manifest, path.string());
    if (root.string("identity") != identity) return std::nullopt;
    QuantizedCache cache;
    const JsonObject weights = root.object("weights");
    for (const auto& [name, entry] : weights.value().items()) {
      const JsonObject fields(entry, weights.where(name));
      SafetensorsFile file = SafetensorsFile::open(place / fs::path(fields.string("file")).filename());
      if (!file.contains(name) || stamp_of(file.path()) != fields.object("stamp").value()) return std::nullopt;
      cache.weights_.emplace(name, Weight{std::move(file), fields.string("source_hash"), fields.string("hash")});
    }
    return cache;
  } catch (const Error&) {
    return std::nullopt;
  }
}

Weight4bitInfo QuantizedCache::info(std::string_view name) const {
  return read_weight4bit_info(weights_.find(name)->second.file, name);
}

Weight4bit QuantizedCache::read(std::string_view name) const {
  return read_weight4bit(weights_.find(name)->second.file, name);
}

void QuantizedCache::read_ahead(std::string_view name) const {
  qshard::read_ahead(weights_.find(name)->second.file.bytes());
}

bool QuantizedCache::is_unchanged(std::string_view name, const TensorView& source) const {
  const Weight& weight = weights_.find(name)->second;
  return hex(source.bytes) == weight.source_hash && hash_of(weight.file) == weight.hash;
}

void QuantizedCacheWriter::add(const std::string& name, const Weight4bit& weight, const TensorView& source) {
  std::vector<std::pair<std::string, TensorView>> tensors;
  std::vector<Tensor> kept;
  Weight4bit stored = weight;
  stored.info.storage = DType::u8;
  stored.info.dtype = source.dtype;
  append_weight4bit(name, stored.view(), tensors, kept);
  const std::string file_name = name + ".safetensors";
  write_safetensors(directory_ / file_name, std::move(tensors));
  const SafetensorsFile file = SafetensorsFile::open(directory_ / file_name);
  entries_[name] = {{"file", file_name},
                    {"stamp", stamp_of(file.path())},
                    {"source_hash", hex(source.bytes)},
                    {"hash", hash_of(file)}};
}

void QuantizedCacheWriter::write_manifest(const fs::path& directory, std::string_view identity, const Json& entries) {
  write_file(directory / kManifest, python_json(Json{{"identity", identity}, {"weights", entries}}, 1) + "\n");
}

}  // namespace qshard
