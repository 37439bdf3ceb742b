#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "bench/providers/qshard_provider.h"
#include "core/tensor/codebook.h"
#include "core/tensor/dtype.h"

namespace qshard::bench {

/// Words of the plug-in interface and the project's own.
DType dtype_of(const qshard_problem& problem);
QuantType quant_type_of(const qshard_problem& problem);
std::string_view operation_name(std::uint32_t operation);
bool is_linear(const qshard_problem& problem);

/// The least an operation must move and do: each input read once, each output written once; a product and a sum are
/// two operations, and only the matrix product counts.
struct Traffic {
  double bytes_read = 0;
  double bytes_written = 0;
  double flops = 0;
  double weight_bytes = 0;  // codes and scales of the 4-bit weight; for a dense provider the dense weight

  [[nodiscard]] double bytes() const { return bytes_read + bytes_written; }
};

/// dense: the provider reads a weight of 16 or 32 bits instead of the 4-bit one.
Traffic traffic_of(const qshard_problem& problem, bool dense);

/// How many copies of a row's buffers, `bytes` each, calls rotate among to find an L2 cache of l2_bytes cold: as many
/// as together take kColdFactor times the cache, two at least, and kMostCopies at most: copies of tiny weights that
/// would be hundreds of thousands take minutes to make and to check. With fewer than would fill it the cache is warm.
struct CopyCount {
  static constexpr std::size_t kColdFactor = 6;
  static constexpr std::size_t kMostCopies = 512;

  std::size_t copies = 0;
  bool cold = false;

  CopyCount(std::size_t bytes, std::size_t l2_bytes);
};

/// How a row is timed, where that changes what its time means.
struct Manner {
  bool warm = false;          // one set of buffers, so that what fits stays in the L2 cache
  int sustained_seconds = 0;  // calls go on for so long before they are timed, and while they are; 0: one short batch
};

/// "linear4bit/rows:16/n:28672/k:8192/blocksize:64/dtype:bf16/nested:1", with "type:fp4", "warm:1" and "sustained:2"
/// (seconds) where they apply.
std::string problem_name(const qshard_problem& problem, const Manner& manner = {});

/// The same with "provider:NAME" after the operation: the name of a row.
std::string row_name(const qshard_problem& problem, std::string_view provider, const Manner& manner = {});

}  // namespace qshard::bench
