#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/gpu/ceilings.h"
#include "bench/gpu/clocks.h"
#include "bench/gpu/device.h"
#include "bench/gpu/host_weight.h"
#include "bench/gpu/measure.h"
#include "bench/gpu/workload.h"
#include "bench/providers/provider.h"

namespace qshard::bench {

/// What all rows share: the device, its limits, and the weight that the last row used.
struct Session {
  const DeviceInfo& device;
  const Clocks& clocks;
  const Ceilings& ceilings;
  std::unique_ptr<HostWeight> weight;

  /// The weight of `problem`, made anew only where the last row had another.
  HostWeight& weight_for(const qshard_problem& problem);
};

/// One row of the table: a problem and who does it.
class Row {
 public:
  Row(const qshard_problem& problem, Provider& provider, const Manner& manner, double batch_seconds)
      : problem_(problem), provider_(provider), manner_(manner), batch_seconds_(batch_seconds) {}
  ~Row() { release(); }
  Row(const Row&) = delete;
  Row& operator=(const Row&) = delete;

  /// One repetition. The first call makes the data, lets the provider prepare itself, runs it and checks every output;
  /// each call times a batch of calls on poisoned outputs and checks outputs and inputs again. Throws Error where a
  /// check fails or a time is below what the hardware allows.
  Sample measure(Session& session);

  /// Lets the provider finish and frees the device memory; the results stay.
  void release();

  [[nodiscard]] const qshard_problem& problem() const { return problem_; }
  [[nodiscard]] std::string name() const { return row_name(problem_, provider_.name(), manner_); }
  [[nodiscard]] std::string group() const { return problem_name(problem_, manner_); }
  [[nodiscard]] std::string provider() const { return provider_.name(); }
  [[nodiscard]] bool on_host() const { return provider_.on_host(); }
  [[nodiscard]] Traffic traffic() const { return traffic_of(problem_, provider_.reads_dense_weight()); }
  [[nodiscard]] const std::vector<Sample>& samples() const { return samples_; }
  [[nodiscard]] double median_seconds() const;
  [[nodiscard]] double worst_difference() const { return worst_; }
  [[nodiscard]] bool fills_cache() const { return fills_cache_; }  // Workload::fills_cache()

  std::string error;  // why the row failed; empty: it did not

 private:
  void prepare(Session& session);
  void check(const char* when);
  Sample time_on_device(Session& session);
  Sample time_on_host();

  qshard_problem problem_;
  Provider& provider_;
  Manner manner_;
  double batch_seconds_;
  double worst_ = 0;
  bool fills_cache_ = true;
  int calls_ = 0;
  std::uint64_t input_hash_ = 0;
  std::unique_ptr<Workload> workload_;
  std::vector<qshard_buffers> copies_;  // what the provider was prepared with
  bool prepared_ = false;
  std::vector<Sample> samples_;
};

/// The shortest time that `traffic` can take: memory at the best measured rate with 5 % to spare, products at the
/// measured rate with 30 % (a GPU at its highest clock is about so far above one at its power limit, and data with few
/// different values draws less power). warm: what fits in the cache does not count.
double floor_seconds(const Traffic& traffic, const Ceilings& ceilings, bool warm);

}  // namespace qshard::bench
