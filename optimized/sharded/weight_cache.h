#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "core/base/atomic_file.h"
#include "core/formats/quantized_cache.h"
#include "core/launch/rank_link.h"
#include "core/run/engine_options.h"
#include "optimized/sharded/weight_source.h"

namespace qshard::optimized {

/// One load of a checkpoint with a cache of its quantized weights (core/formats/quantized_cache.h): they are read from
/// it where it fits the checkpoint on every rank; else they are quantized and it is written anew. All ranks must see
/// the same checkpoint; a cache is only written where all of them are on one host. Writing never fails a run: what a
/// full disk or a killed process leaves is no cache, and the next run removes it.
class WeightCache {
 public:
  /// Collective. With `checks` every weight's bytes and those it was made from are hashed, and a weight that differs
  /// from the first load is quantized again.
  WeightCache(const HfCheckpoint& checkpoint, const EngineOptions& options, const std::filesystem::path& root,
              bool checks, RankLink& link);
  ~WeightCache();
  WeightCache(const WeightCache&) = delete;
  WeightCache& operator=(const WeightCache&) = delete;

  /// What to load from; must not outlive the cache.
  [[nodiscard]] const WeightSource& source() const;
  /// Collective, after the load. Returns what is to be told: where weights came from, or went.
  std::string finish();

 private:
  class Source;

  [[nodiscard]] bool is_wanted() const;
  void begin_writing();
  std::string commit();

  const HfCheckpoint* checkpoint_;
  EngineOptions options_;
  std::filesystem::path place_;
  RankLink* link_;
  std::string identity_;
  std::optional<QuantizedCache> cache_;
  std::optional<AtomicDirectory> directory_;  // rank 0's, while it is written
  std::unique_ptr<Source> source_;
};

}  // namespace qshard::optimized
