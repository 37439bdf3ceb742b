#include "bench/gpu/adapted_product_rows.h"

#include <memory>
#include <string_view>

#include <fmt/format.h>

#include "optimized/dropout_masks.h"
#include "optimized/linear4bit/linear4bit_plan.h"
#include "optimized/lora.h"

namespace qshard::bench {
namespace {

using optimized::Linear4bitDirection;

constexpr std::int64_t kTokens = 2048;
constexpr std::int64_t kRank = 64;
constexpr double kScaling = 0.25;
constexpr double kDropout = 0.1;
constexpr int kBlocksize = 64;

/// What all calls of a row share.
struct Setting {
  Setting(std::int64_t out_, std::int64_t in_, bool forward_, DType dtype_)
      : out(out_),
        in(in_),
        forward(forward_),
        dtype(dtype_),
        plan(plans, {out, in, dtype, QuantType::nf4, kBlocksize, false}, kTokens,
             forward ? Linear4bitDirection::forward : Linear4bitDirection::input_gradient, {}, true),
        workspace(plan.workspace_bytes()) {}

  std::int64_t out, in;
  bool forward;
  DType dtype;
  optimized::MatmulPlans plans;
  optimized::Linear4bitPlan plan;
  DeviceBuffer workspace;
};

enum Place { kIn, kOut, kFactor, kMatrix, kMask, kCodes, kAbsmax };

optimized::Linear4bitAdapter adapter_of(const Setting& setting, const std::vector<void*>& b) {
  if (setting.forward) return {kRank, b[kFactor], kRank, b[kMatrix], kScaling, nullptr};
  return {kRank, b[kFactor], kRank, b[kMatrix], 1 / (1 - kDropout), static_cast<const std::uint8_t*>(b[kMask])};
}

void update(const Setting& setting, const std::vector<void*>& b, cudaStream_t stream) {
  if (setting.forward) {
    return optimized::lora_up_add({kTokens, setting.out, kRank, setting.dtype, kScaling}, b[kFactor], b[kMatrix],
                                  b[kOut], setting.out, stream);
  }
  const optimized::LoraInputGradient projection{b[kFactor], b[kMatrix], kRank,
                                                static_cast<const std::uint8_t*>(b[kMask])};
  optimized::lora_input_gradient({kTokens, setting.in, setting.dtype, kDropout}, {&projection, 1}, b[kOut], setting.in,
                                 stream);
}

StepKernel make_row(const std::string& operation, std::string_view adapter, const std::shared_ptr<Setting>& setting) {
  const std::int64_t in_width = setting->forward ? setting->in : setting->out;
  const std::int64_t out_width = setting->forward ? setting->out : setting->in;
  const auto elements = static_cast<std::size_t>(setting->out * setting->in);
  const std::size_t element = size_of(setting->dtype);
  StepKernel row;
  row.name = fmt::format("{}/provider:qshard/adapter:{}/n:{}/k:{}/rows:{}/r:{}/dtype:{}", operation, adapter,
                         setting->out, setting->in, kTokens, kRank, setting->dtype == DType::bf16 ? "bf16" : "f16");
  row.buffers = {static_cast<std::size_t>(kTokens * in_width) * element,
                 static_cast<std::size_t>(kTokens * out_width) * element,
                 static_cast<std::size_t>(kTokens * kRank) * element,
                 static_cast<std::size_t>(kRank * out_width) * element,
                 static_cast<std::size_t>(kTokens * optimized::dropout_mask_stride(setting->in)),
                 elements / 2,
                 elements / kBlocksize * sizeof(float)};
  for (std::size_t i = 0; i < row.buffers.size(); ++i) {
    if (i != kMask || !setting->forward) row.bytes += static_cast<double>(row.buffers[i]);
  }
  row.flops = 2.0 * static_cast<double>(kTokens * out_width) * static_cast<double>(in_width + kRank);
  row.run = [setting, adapter, in_width, out_width](const std::vector<void*>& b, cudaStream_t stream) {
    optimized::DeviceWeight4bit weight{QuantType::nf4, kBlocksize, setting->out * setting->in,
                                       static_cast<const std::uint8_t*>(b[kCodes])};
    weight.absmax = static_cast<const float*>(b[kAbsmax]);
    optimized::Linear4bitAddends addends;
    if (adapter == "in-product") addends.adapter = adapter_of(*setting, b);
    setting->plan.run(weight, b[kIn], in_width, b[kOut], out_width, setting->workspace.as(), stream, addends);
    if (adapter == "separate") update(*setting, b, stream);
  };
  return row;
}

}  // namespace

std::vector<StepKernel> adapted_product_rows(const std::string& operation, DType dtype) {
  std::vector<StepKernel> rows;
  if (dtype == DType::f32) return rows;
  const bool forward = operation == "adapted_product";
  for (const auto& [out, in] : {std::pair<std::int64_t, std::int64_t>{8192, 8192}, {28672, 8192}, {8192, 28672}}) {
    const auto setting = std::make_shared<Setting>(out, in, forward, dtype);
    if (setting->plan.kernel_name() != std::string_view("many_rows")) continue;
    for (const std::string_view adapter : {"in-product", "separate", "none"}) {
      rows.push_back(make_row(operation, adapter, setting));
    }
  }
  return rows;
}

}  // namespace qshard::bench
