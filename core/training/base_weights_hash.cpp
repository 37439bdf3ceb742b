#include "core/training/base_weights_hash.h"

#include <algorithm>
#include <functional>
#include <memory>

#include <fmt/format.h>

#include "core/base/json.h"
#include "core/base/xxh64.h"

namespace qshard {
namespace {

constexpr std::size_t kPiece = std::size_t{64} << 20U;  // hashed on its own; part of what the hash is

std::string hex(std::uint64_t hash) {
  return fmt::format("{:016x}", hash);
}

/// An empty text where `stopped` says so before the end.
std::string hash_until(const HfCheckpoint& checkpoint, const std::function<bool()>& stopped) {
  Json config = parse_json(checkpoint.config().text, "config.json");
  for (const char* key : {"transformers_version", "_name_or_path"}) config.erase(key);
  std::string text = config.dump();
  for (const SafetensorsFile& file : checkpoint.files()) {
    const std::span<const std::byte> bytes = file.bytes();
    for (std::size_t begin = 0; begin < bytes.size(); begin += kPiece) {
      if (stopped()) return {};
      text += hex(xxh64(bytes.subspan(begin, std::min(kPiece, bytes.size() - begin))));
    }
    text += '\n';
  }
  return hex(xxh64(std::as_bytes(std::span(text))));
}

}  // namespace

std::string base_weights_hash(const HfCheckpoint& checkpoint) {
  return hash_until(checkpoint, [] { return false; });
}

BaseWeightsHash::BaseWeightsHash(const std::filesystem::path& model) {
  const auto checkpoint = std::make_shared<const HfCheckpoint>(HfCheckpoint::open(model));
  const auto work = [this, checkpoint] { return hash_until(*checkpoint, [this] { return stopped_.load(); }); };
  hash_ = std::async(std::launch::async | std::launch::deferred, work);  // deferred: there is no thread to be had
}

BaseWeightsHash::~BaseWeightsHash() {
  stopped_ = true;
}

}  // namespace qshard
