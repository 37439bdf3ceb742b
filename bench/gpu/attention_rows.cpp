#include "bench/gpu/attention_rows.h"

#include <memory>

#include <fmt/format.h>

#include "optimized/attention/attention_table.h"

namespace qshard::bench {
namespace {

using optimized::AttentionKernel;
using optimized::AttentionShape;
using optimized::AttentionSizes;
using optimized::AttentionTensors;

constexpr std::int64_t kHeads = 64;
constexpr std::int64_t kKvHeads = 8;
constexpr std::int64_t kHeadDim = 128;

/// The plain kernels take minutes for more.
constexpr std::int64_t kMostPlainTokens = 2048;

/// What all calls of a row share.
struct Setting {
  Setting(const AttentionKernel& chosen, DType dtype, std::int64_t tokens)
      : kernel(chosen),
        shape{kHeads, kKvHeads, kHeadDim, 0, kHeads * kHeadDim, kKvHeads * kHeadDim, kHeads * kHeadDim, dtype},
        sizes{tokens, 1, tokens},
        offsets(2 * sizeof(std::int32_t)),
        workspace(kernel.workspace_bytes(shape, sizes)) {
    const std::vector<std::int32_t> values{0, static_cast<std::int32_t>(tokens)};
    offsets.upload(values.data(), offsets.bytes());
    rows.offsets = offsets.as<std::int32_t>();
    rows.tokens = rows.longest = static_cast<std::int32_t>(tokens);
    rows.rows = 1;
  }

  const AttentionKernel& kernel;
  AttentionShape shape;
  AttentionSizes sizes;
  optimized::TokenRows rows;
  DeviceBuffer offsets;
  DeviceBuffer workspace;
};

StepKernel make_row(const std::string& operation, const std::shared_ptr<Setting>& setting) {
  const bool backward = operation == "attention_backward";
  const std::int64_t tokens = setting->sizes.tokens;
  const std::size_t element = size_of(setting->shape.dtype);
  const std::size_t queries = static_cast<std::size_t>(tokens * kHeads * kHeadDim) * element;
  const std::size_t keys = static_cast<std::size_t>(tokens * kKvHeads * kHeadDim) * element;
  const std::size_t statistics = static_cast<std::size_t>(tokens * kHeads) * sizeof(float);
  StepKernel row;
  row.name = fmt::format("{}/provider:qshard/kernel:{}/heads:{}/kv_heads:{}/head_dim:{}/tokens:{}/dtype:{}", operation,
                         setting->kernel.name, kHeads, kKvHeads, kHeadDim, tokens,
                         setting->shape.dtype == DType::f32    ? "f32"
                         : setting->shape.dtype == DType::bf16 ? "bf16"
                                                               : "f16");
  row.buffers = {queries, keys, keys, queries, statistics};
  if (backward) row.buffers.insert(row.buffers.end(), {queries, queries, keys, keys});
  for (const std::size_t bytes : row.buffers) row.bytes += static_cast<double>(bytes);
  const double product = static_cast<double>(kHeads * kHeadDim * tokens) * static_cast<double>(tokens + 1);
  row.flops = (backward ? 5 : 2) * product;
  row.run = [setting, backward](const std::vector<void*>& b, cudaStream_t stream) {
    AttentionTensors tensors{.q = b[0], .k = b[1], .v = b[2], .o = b[3], .lse = static_cast<float*>(b[4])};
    if (backward) {
      tensors.dout = b[5];
      tensors.dq = b[6];
      tensors.dk = b[7];
      tensors.dv = b[8];
    }
    const auto run = backward ? setting->kernel.backward : setting->kernel.forward;
    run(setting->shape, setting->rows, tensors, setting->workspace.as(), stream);
  };
  return row;
}

}  // namespace

std::vector<StepKernel> attention_rows(const std::string& operation, DType dtype) {
  std::vector<StepKernel> rows;
  for (const std::int64_t tokens : {512, 1024, 2048, 4096, 8192}) {
    for (const AttentionKernel& kernel : optimized::attention_kernels()) {
      const bool plain = kernel.name == "plain";
      if (plain && (dtype != DType::f32 || tokens > kMostPlainTokens)) continue;
      const auto setting = std::make_shared<Setting>(kernel, dtype, tokens);
      if (!kernel.refuses_shape(setting->shape, setting->sizes).empty()) continue;
      if (!kernel.refuses_call(setting->shape, setting->sizes, {}).empty()) continue;
      rows.push_back(make_row(operation, setting));
    }
  }
  return rows;
}

}  // namespace qshard::bench
