#include "bench/ladder/ladder.h"

#include <algorithm>
#include <bit>

#include <fmt/format.h>

#include "bench/gpu/problem.h"
#include "bench/providers/provider.h"

namespace qshard::bench {
namespace {

using Step = void (*)(const ladder::Arguments&, cudaStream_t);

/// One step of bench/ladder/.
class LadderProvider : public Provider {
 public:
  LadderProvider(std::string name, Step step) : name_(std::move(name)), step_(step) {}

  [[nodiscard]] std::string name() const override { return name_; }

  [[nodiscard]] std::string unsupported(const qshard_problem& problem) const override {
    if (problem.operation != QSHARD_DEQUANTIZE || problem.nested == 0 || problem.dtype != QSHARD_BF16) {
      return "the ladder is of nested dequantize to bf16";
    }
    const bool fits = problem.n * problem.k % ladder::kMultiple == 0;
    return fits ? "" : fmt::format("the ladder takes multiples of {} elements", ladder::kMultiple);
  }

  void run(const qshard_problem& problem, const qshard_buffers& buffers, cudaStream_t stream) override {
    ladder::Arguments arguments{};
    arguments.codes = buffers.codes;
    arguments.absmax_codes = buffers.absmax_codes;
    arguments.nested_absmax = buffers.nested_absmax;
    arguments.nested_map = buffers.nested_map;
    arguments.offset = buffers.offset;
    arguments.out = static_cast<std::uint16_t*>(buffers.weight);
    arguments.elements = problem.n * problem.k;
    arguments.blocksize_log2 = std::countr_zero(static_cast<std::uint64_t>(problem.blocksize));
    std::ranges::copy(codebook(quant_type_of(problem)), arguments.codebook.values);
    step_(arguments, stream);
  }

 private:
  std::string name_;
  Step step_;
};

}  // namespace

std::vector<std::unique_ptr<Provider>> make_ladder_providers() {
  std::vector<std::unique_ptr<Provider>> steps;
  steps.push_back(std::make_unique<LadderProvider>("ladder-1-naive", ladder::step1_naive));
  steps.push_back(std::make_unique<LadderProvider>("ladder-2-shared-table", ladder::step2_shared_table));
  steps.push_back(std::make_unique<LadderProvider>("ladder-3-byte", ladder::step3_byte));
  steps.push_back(std::make_unique<LadderProvider>("ladder-4-wide", ladder::step4_wide));
  steps.push_back(std::make_unique<LadderProvider>("ladder-5-in-flight", ladder::step5_in_flight));
  return steps;
}

}  // namespace qshard::bench
