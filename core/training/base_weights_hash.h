#pragma once

#include <atomic>
#include <filesystem>
#include <future>
#include <string>

#include "core/formats/hf_checkpoint.h"

namespace qshard {

/// 16 hexadecimal digits over all bytes of the checkpoint's weight files, in the order of their names, and over the
/// values of its config.json. Reads everything once.
std::string base_weights_hash(const HfCheckpoint& checkpoint);

/// The same, worked out beside what the caller does meanwhile. Loading a model reads the same files in much the same
/// order, so that each page comes from the disk once.
class BaseWeightsHash {
 public:
  /// Opens the model's directory and begins. Throws the errors of HfCheckpoint::open.
  explicit BaseWeightsHash(const std::filesystem::path& model);
  BaseWeightsHash(const BaseWeightsHash&) = delete;
  BaseWeightsHash& operator=(const BaseWeightsHash&) = delete;
  /// Gives up what is not done yet.
  ~BaseWeightsHash();

  /// Waits until it is there. At most once.
  std::string get() { return hash_.get(); }

 private:
  std::atomic<bool> stopped_ = false;
  std::future<std::string> hash_;
};

}  // namespace qshard
