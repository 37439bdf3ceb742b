#pragma once

#include <optional>
#include <string>

#include "core/run/run_config.h"
#include "core/training/base_weights_hash.h"

namespace qshard {

/// The hash of the run's base weights. Where an earlier run kept it in quantization.cache_dir and the checkpoint's
/// files are the same, nothing is read; else, and with quantization.cache_check, it is worked out beside what the
/// caller does meanwhile.
class BaseHash {
 public:
  /// Throws the errors of HfCheckpoint::open.
  explicit BaseHash(const RunConfig& config);

  /// Waits until it is there, and keeps it for the next run. At most once, after the model was loaded.
  std::string get();

 private:
  const RunConfig* config_;
  std::string identity_;  // when it began; empty without a cache
  std::optional<std::string> kept_;
  std::optional<BaseWeightsHash> hash_;  // without kept_
};

}  // namespace qshard
