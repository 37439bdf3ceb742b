#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "bench/gpu/device.h"
#include "bench/gpu/measure.h"
#include "bench/gpu/options.h"
#include "bench/gpu/row.h"

namespace qshard::bench {

/// A kernel of the training step other than a linear layer, at the size that a step of a model has.
struct StepKernel {
  std::string name;                  // "rmsnorm/provider:qshard/model:llama-2-70b/tokens:2048/dtype:bf16"
  double bytes = 0;                  // the least a call must move: each input read once, each output written once
  std::vector<std::size_t> buffers;  // sizes of those that are rotated among, filled with random numbers
  std::function<void(const std::vector<void*>& buffers, cudaStream_t stream)> run;
  double flops = 0;  // 0: memory bounds it
};

/// The kernels that the options name, for each of their dtypes and for the steps of Llama-2-70B (2048 tokens) and
/// Llama-3-8B (4096 tokens). Allocates the small inputs that every call shares.
std::vector<StepKernel> step_kernels_of(const Options& options);

/// A row of the table: enough copies of the buffers to fill the L2 cache six times, and calls that rotate among them.
/// Only times are taken: values are held to the reference in correctness/gpu/, and some of these kernels work in place.
class StepKernelRow {
 public:
  StepKernelRow(StepKernel kernel, double batch_seconds) : kernel_(std::move(kernel)), batch_seconds_(batch_seconds) {}

  /// One repetition; the first makes the data. Throws Error where a time is below what the measured ceilings allow.
  Sample measure(const Session& session);

  /// Frees the device memory; the results stay.
  void release() { copies_.clear(); }

  [[nodiscard]] const std::string& name() const { return kernel_.name; }
  [[nodiscard]] double bytes() const { return kernel_.bytes; }
  [[nodiscard]] double flops() const { return kernel_.flops; }
  [[nodiscard]] double median_seconds() const;

  std::string error;  // why the row failed; empty: it did not

 private:
  void prepare(const Session& session);
  Sample time(const Session& session, int calls);

  StepKernel kernel_;
  double batch_seconds_;
  int calls_ = 0;
  std::vector<std::vector<DeviceBuffer>> copies_;
  std::vector<double> seconds_;
};

/// The rows as a Markdown table: median time, GB/s (powers of ten) and its share of the copy ceiling, and where there
/// are FLOPs TFLOP/s and its share of the product ceiling.
std::string format_step_kernels(const std::vector<std::unique_ptr<StepKernelRow>>& rows, const Ceilings& ceilings);

}  // namespace qshard::bench
