#include <algorithm>
#include <cstring>

#include "bench/gpu/problem.h"
#include "bench/providers/provider.h"
#include "core/base/error.h"
#include "reference/dequantize.h"
#include "reference/quantize.h"

namespace qshard::bench {
namespace {

template <typename T>
void copy_to(const std::vector<T>& from, T* to) {
  std::copy(from.begin(), from.end(), to);
}

/// The specification itself, on the CPU's cores.
class ReferenceProvider : public Provider {
 public:
  [[nodiscard]] std::string name() const override { return "reference"; }

  [[nodiscard]] std::string unsupported(const qshard_problem& problem) const override {
    return is_linear(problem) ? "its linear layer is timed in qshard_bench" : "";
  }

  [[nodiscard]] bool on_host() const override { return true; }

  void run(const qshard_problem& problem, const qshard_buffers& buffers, cudaStream_t /*stream*/) override {
    const std::int64_t elements = problem.n * problem.k;
    const std::size_t dense_bytes = elements * size_of(dtype_of(problem));
    if (problem.operation == QSHARD_DEQUANTIZE) {
      const Weight4bitInfo info = info_of(problem, buffers);
      reference::dequantize(view_of(info, buffers, elements), dtype_of(problem),
                            {static_cast<std::byte*>(buffers.weight), dense_bytes});
      return;
    }
    QuantizationOptions options;
    options.quant_type = quant_type_of(problem);
    options.blocksize = static_cast<int>(problem.blocksize);
    options.double_quant = problem.nested != 0;
    const TensorView dense{
        dtype_of(problem), {problem.n, problem.k}, {static_cast<const std::byte*>(buffers.weight), dense_bytes}};
    const Weight4bit weight = reference::quantize(dense, options, "the benchmark's weight");
    copy_to(weight.codes, buffers.codes);
    copy_to(weight.absmax, buffers.absmax);
    copy_to(weight.absmax_codes, buffers.absmax_codes);
    copy_to(weight.nested_absmax, buffers.nested_absmax);
    if (problem.nested != 0) *buffers.offset = weight.info.offset;
  }

 private:
  static Weight4bitInfo info_of(const qshard_problem& problem, const qshard_buffers& buffers) {
    Weight4bitInfo info;
    info.quant_type = quant_type_of(problem);
    info.blocksize = static_cast<int>(problem.blocksize);
    info.dtype = dtype_of(problem);
    info.shape = {problem.n, problem.k};
    info.nested = problem.nested != 0;
    if (info.nested) {
      info.offset = *buffers.offset;
      std::copy_n(buffers.nested_map, info.nested_map.size(), info.nested_map.begin());
    }
    return info;
  }

  static Weight4bitView view_of(const Weight4bitInfo& info, const qshard_buffers& buffers, std::int64_t elements) {
    const auto blocks = static_cast<std::size_t>(block_count(elements, info.blocksize));
    const auto nested_blocks =
        static_cast<std::size_t>(block_count(static_cast<std::int64_t>(blocks), kNestedBlocksize));
    Weight4bitView view{&info, {buffers.codes, static_cast<std::size_t>(packed_bytes(elements))}, {}, {}, {}};
    if (info.nested) {
      view.absmax_codes = {buffers.absmax_codes, blocks};
      view.nested_absmax = {buffers.nested_absmax, nested_blocks};
    } else {
      view.absmax = {buffers.absmax, blocks};
    }
    return view;
  }
};

}  // namespace

std::unique_ptr<Provider> make_reference_provider() {
  return std::make_unique<ReferenceProvider>();
}

}  // namespace qshard::bench
