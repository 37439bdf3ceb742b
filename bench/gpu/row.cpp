#include "bench/gpu/row.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <nvtx3/nvtx3.hpp>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"

namespace qshard::bench {
namespace {

constexpr cudaStream_t kStream = nullptr;  // the legacy stream, the only one that every peer takes

}  // namespace

HostWeight& Session::weight_for(const qshard_problem& problem) {
  if (weight == nullptr || !weight->fits(problem)) weight = std::make_unique<HostWeight>(problem);
  return *weight;
}

double floor_seconds(const Traffic& traffic, const Ceilings& ceilings, bool warm) {
  const double memory = warm ? 0.0 : traffic.bytes() / (1.05 * ceilings.memory());
  const double product = ceilings.product > 0 ? traffic.flops / (1.3 * ceilings.product) : 0.0;
  return std::max(memory, product);
}

double Row::median_seconds() const {
  std::vector<double> seconds;
  for (const Sample& sample : samples_) seconds.push_back(sample.seconds);
  return median(std::move(seconds));
}

void Row::release() {
  if (prepared_) {
    cudaDeviceSynchronize();
    provider_.finish();
  }
  prepared_ = false;
  workload_.reset();
}

Sample Row::measure(Session& session) {
  if (workload_ == nullptr) prepare(session);
  {
    const nvtx3::scoped_range range("poison");
    workload_->poison();
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  }
  const Sample sample = provider_.on_host() ? time_on_host() : time_on_device(session);
  const nvtx3::scoped_range range("check after timing");
  check("after");
  worst_ = workload_->worst();
  const double floor = floor_seconds(traffic(), session.ceilings, manner_.warm || !fills_cache_);
  if (!provider_.on_host() && !(sample.seconds >= floor)) {
    fail(ExitCode::check_failed,
         "{:.3g} us is below the {:.3g} us that the measured ceilings allow: it cannot have done the work",
         1e6 * sample.seconds, 1e6 * floor);
  }
  samples_.push_back(sample);
  return sample;
}

void Row::prepare(Session& session) {
  const nvtx3::scoped_range range("prepare");
  workload_ = std::make_unique<Workload>(problem_, provider_, session.weight_for(problem_), session.device.l2_bytes,
                                         manner_.warm);
  fills_cache_ = workload_->fills_cache();
  workload_->poison();
  input_hash_ = workload_->hash_inputs();
  if (provider_.on_host()) {
    calls_ = 1;
    time_on_host();
  } else {
    const int copies = workload_->copies();
    copies_.clear();
    for (int copy = 0; copy < copies; ++copy) copies_.push_back(workload_->buffers(copy));
    prepared_ = true;
    provider_.prepare(problem_, copies_, kStream);
    workload_->poison();
    const auto call = [this, copies](int i) { provider_.run(problem_, workload_->buffers(i % copies), kStream); };
    const double first = time_calls(copies, kStream, session.clocks, call).seconds;
    calls_ = calls_of_batch(batch_seconds_, first, copies);
  }
  check("before");
}

void Row::check(const char* when) {
  if (workload_->hash_inputs() != input_hash_) fail(ExitCode::check_failed, "{} timing: inputs were changed", when);
  const std::string wrong = workload_->check();
  if (!wrong.empty()) fail(ExitCode::check_failed, "{} timing: {}", when, wrong);
}

Sample Row::time_on_device(Session& session) {
  const nvtx3::scoped_range range(name());
  const int copies = workload_->copies();
  const auto call = [this, copies](int i) { provider_.run(problem_, workload_->buffers(i % copies), kStream); };
  return manner_.sustained_seconds > 0
             ? time_sustained(manner_.sustained_seconds, calls_, kStream, session.clocks, call)
             : time_calls(calls_, kStream, session.clocks, call);
}

Sample Row::time_on_host() {
  const nvtx3::scoped_range range(name());
  const qshard_buffers buffers = workload_->host_buffers();
  const auto start = std::chrono::steady_clock::now();
  provider_.run(problem_, buffers, kStream);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  workload_->upload_host_outputs();
  return {seconds, 1, {}, false, 0};
}

}  // namespace qshard::bench
