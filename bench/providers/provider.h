#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "bench/providers/qshard_provider.h"

namespace qshard::bench {

/// Somebody whose kernels stand in the table: the C interface of qshard_provider.h with two additions that only known
/// providers need. Errors are thrown as qshard::Error.
class Provider {
 public:
  Provider() = default;
  Provider(const Provider&) = delete;
  Provider& operator=(const Provider&) = delete;
  virtual ~Provider() = default;

  [[nodiscard]] virtual std::string name() const = 0;

  /// Why this problem cannot be done; empty: it can.
  [[nodiscard]] virtual std::string unsupported(const qshard_problem& problem) const = 0;

  [[nodiscard]] virtual std::size_t workspace_bytes(const qshard_problem& /*problem*/) const { return 0; }

  /// Called once for each row before anything is checked or timed. buffers: the sets that calls of run() rotate over.
  virtual void prepare(const qshard_problem& /*problem*/, std::span<const qshard_buffers> /*buffers*/,
                       cudaStream_t /*stream*/) {}

  /// Enqueues the operation.
  virtual void run(const qshard_problem& problem, const qshard_buffers& buffers, cudaStream_t stream) = 0;

  /// Called once when the row is done, after its last run(), also where prepare() failed.
  virtual void finish() {}

  /// Roundings of a single product before it is summed; widens the bound of the check.
  [[nodiscard]] virtual int product_roundings(const qshard_problem& /*problem*/) const { return 0; }

  /// Linear layers: `buffers.weight` holds the dequantized weight, and the 4-bit one is not read.
  [[nodiscard]] virtual bool reads_dense_weight() const { return false; }

  /// The buffers lie in host memory, run() returns when it is done, and the host's clock times it.
  [[nodiscard]] virtual bool on_host() const { return false; }
};

/// portable: linear layers by the kernels for GPUs without warpgroup instructions, as "qshard_portable".
std::unique_ptr<Provider> make_qshard_provider(bool portable = false);
std::unique_ptr<Provider> make_reference_provider();
std::unique_ptr<Provider> make_cublas_provider();

/// The steps of bench/ladder/, from the first to the best: "ladder-1-naive", ...
std::vector<std::unique_ptr<Provider>> make_ladder_providers();

/// Loads libbitsandbytes_cuda*.so from `path`. Throws Error(bad_input) for a library that lacks its functions.
std::unique_ptr<Provider> make_bitsandbytes_provider(const std::string& path);

/// `given`, else $QSHARD_BITSANDBYTES_LIBRARY, else the one in the Python environment on the PATH that fits the CUDA
/// runtime; empty where there is none.
std::string find_bitsandbytes(const std::string& given);

/// Loads a shared library that exports qshard_provider_v2(). Throws Error(bad_input) where it is not such a library.
std::unique_ptr<Provider> make_plugin_provider(const std::string& path);

}  // namespace qshard::bench
