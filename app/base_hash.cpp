#include "app/base_hash.h"

#include <chrono>

#include "core/formats/quantized_cache.h"

namespace qshard {
namespace {

std::filesystem::path place_of(const RunConfig& config, const HfCheckpoint& checkpoint) {
  return quantized_cache_place(config.quantization_cache_dir, checkpoint, config.quantization);
}

}  // namespace

BaseHash::BaseHash(const RunConfig& config) : config_(&config) {
  if (!config.quantization_cache_dir.empty()) {
    const HfCheckpoint checkpoint = HfCheckpoint::open(config.model_name_or_path);
    identity_ = quantized_cache_identity(checkpoint, config.quantization);
    if (!config.quantization_cache_check) kept_ = kept_base_hash(place_of(config, checkpoint), identity_);
  }
  if (!kept_) hash_.emplace(config.model_name_or_path);
}

std::string BaseHash::get() {
  if (kept_) return *kept_;
  std::string hash = hash_->get();
  if (identity_.empty()) return hash;
  const HfCheckpoint checkpoint = HfCheckpoint::open(config_->model_name_or_path);
  const bool same = quantized_cache_identity(checkpoint, config_->quantization) == identity_;
  if (same && is_settled(checkpoint, std::chrono::system_clock::now())) {
    keep_base_hash(place_of(*config_, checkpoint), identity_, hash);
  }
  return hash;
}

}  // namespace qshard
