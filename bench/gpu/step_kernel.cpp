#include "bench/gpu/step_kernel.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>

#include <fmt/format.h>
#include <nvtx3/nvtx3.hpp>

#include "bench/gpu/adapted_product_rows.h"
#include "bench/gpu/attention_rows.h"
#include "bench/gpu/device_check.h"
#include "bench/gpu/lora_kernels.h"
#include "core/base/error.h"
#include "core/tensor/codebook.h"
#include "optimized/adamw.h"
#include "optimized/adamw8bit.h"
#include "optimized/cross_entropy.h"
#include "optimized/dropout.h"
#include "optimized/embedding.h"
#include "optimized/rmsnorm.h"
#include "optimized/rope.h"
#include "optimized/sum.h"
#include "optimized/swiglu.h"

namespace qshard::bench {
namespace {

constexpr cudaStream_t kStream = nullptr;
constexpr std::int64_t kHeadDim = 128;
constexpr std::int64_t kLogitRows = 1024;                          // of a chunk of the output head
constexpr std::int64_t kAdapterElements = std::int64_t{40} << 20;  // a rank's share of an adapter

/// A model's step on one GPU.
struct Step {
  std::string model;
  std::int64_t tokens, hidden, intermediate, vocab;
  DType dtype;

  [[nodiscard]] std::size_t bytes(std::int64_t elements) const {
    return static_cast<std::size_t>(elements) * size_of(dtype);
  }
  [[nodiscard]] std::size_t activations() const { return bytes(tokens * hidden); }
  [[nodiscard]] std::size_t intermediates() const { return bytes(tokens * intermediate); }
};

using Buffers = std::vector<void*>;

double total(const std::vector<std::size_t>& sizes) {
  return static_cast<double>(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}));
}

template <typename T>
std::shared_ptr<DeviceBuffer> upload(const std::vector<T>& values) {
  auto buffer = std::make_shared<DeviceBuffer>(values.size() * sizeof(T));
  buffer->upload(values.data(), buffer->bytes());
  return buffer;
}

/// `count` numbers below `limit` without order, the same each time.
std::shared_ptr<DeviceBuffer> indices(std::int64_t count, std::int64_t limit) {
  std::vector<std::int32_t> values(count);
  for (std::int64_t i = 0; i < count; ++i) values[i] = static_cast<std::int32_t>(i * 2654435761 % limit);
  return upload(values);
}

std::shared_ptr<DeviceBuffer> positions_of(const Step& step) {
  std::vector<std::int32_t> positions(step.tokens);
  std::iota(positions.begin(), positions.end(), 0);
  return upload(positions);
}

StepKernel embedding(const Step& step) {
  const std::size_t table_bytes = step.bytes(step.vocab * step.hidden);
  const auto ids = indices(step.tokens, step.vocab);
  const auto run = [step, table_bytes, ids](const Buffers& buffers, cudaStream_t stream) {
    optimized::ShardedTable table;
    table.shards[0] = static_cast<const std::byte*>(buffers[0]);
    table.shard_bytes = static_cast<std::int64_t>(table_bytes);
    table.count = 1;
    optimized::embed(table, 0, step.dtype, step.hidden, ids->as<std::int32_t>(), step.tokens, buffers[1], stream);
  };
  return {"", 2.0 * static_cast<double>(step.activations()), {table_bytes, step.activations()}, run};
}

optimized::NormShape norm_of(const Step& step) {
  return {step.tokens, 1, step.hidden, step.hidden, step.hidden, 1e-5, step.dtype};
}

StepKernel rmsnorm(const Step& step) {
  const std::vector<std::size_t> sizes{step.activations(), step.bytes(step.hidden), step.activations()};
  return {"", total(sizes), sizes, [step](const Buffers& buffers, cudaStream_t stream) {
            optimized::rmsnorm_forward(norm_of(step), buffers[0], buffers[1], buffers[2], stream);
          }};
}

StepKernel rmsnorm_backward(const Step& step) {
  const std::size_t x = step.activations();
  const std::vector<std::size_t> sizes{x, step.bytes(step.hidden), x, x, x, x};
  return {"", total(sizes), sizes, [step](const Buffers& buffers, cudaStream_t stream) {
            optimized::rmsnorm_backward(norm_of(step), buffers[0], buffers[1], buffers[2], buffers[3], buffers[4],
                                        buffers[5], stream);
          }};
}

StepKernel rope(const Step& step) {
  const auto positions = positions_of(step);
  const auto table = upload(std::vector<float>(step.tokens * kHeadDim / 2, 0.5F));
  const auto run = [step, positions, table](const Buffers& buffers, cudaStream_t stream) {
    optimized::rope_forward({step.tokens, step.hidden / kHeadDim, kHeadDim, step.hidden, step.dtype},
                            positions->as<std::int32_t>(), table->as<float>(), table->as<float>(), buffers[0], stream);
  };
  return {"", 2.0 * static_cast<double>(step.activations()), {step.activations()}, run};
}

optimized::SwigluShape swiglu_of(const Step& step) {
  return {step.tokens, step.intermediate, step.intermediate, step.intermediate, step.intermediate, step.dtype};
}

StepKernel swiglu(const Step& step) {
  const std::vector<std::size_t> sizes(3, step.intermediates());
  return {"", total(sizes), sizes, [step](const Buffers& buffers, cudaStream_t stream) {
            optimized::swiglu_forward(swiglu_of(step), buffers[0], buffers[1], buffers[2], stream);
          }};
}

StepKernel swiglu_backward(const Step& step) {
  const std::vector<std::size_t> sizes(6, step.intermediates());
  return {"", total(sizes), sizes, [step](const Buffers& buffers, cudaStream_t stream) {
            optimized::swiglu_backward(swiglu_of(step), buffers[0], buffers[1], buffers[2], buffers[3], buffers[4],
                                       buffers[5], stream);
          }};
}

StepKernel dropout(const Step& step) {
  const std::vector<std::size_t> sizes(2, step.activations());
  const auto positions = positions_of(step);
  const auto row_of = upload(std::vector<std::int32_t>(step.tokens, 0));
  const auto row_ids = upload(std::vector<std::uint32_t>{7});
  return {"", total(sizes), sizes, [step, positions, row_of, row_ids](const Buffers& buffers, cudaStream_t stream) {
            optimized::TokenRows rows;
            rows.positions = positions->as<std::int32_t>();
            rows.row_of = row_of->as<std::int32_t>();
            rows.row_ids = row_ids->as<std::uint32_t>();
            rows.tokens = static_cast<std::int32_t>(step.tokens);
            optimized::dropout({42, 3, 5, 2, 0.1}, rows, step.hidden, step.dtype, buffers[0], step.hidden, buffers[1],
                               step.hidden, stream);
          }};
}

StepKernel cross_entropy(const Step& step) {
  const std::vector<std::size_t> sizes{step.bytes(kLogitRows * step.vocab), kLogitRows * sizeof(float)};
  const auto targets = indices(kLogitRows, step.vocab);
  const auto scale = upload(std::vector<float>{1.0F});
  return {"", 2 * static_cast<double>(sizes[0]), sizes,
          [step, targets, scale](const Buffers& buffers, cudaStream_t stream) {
            optimized::cross_entropy(kLogitRows, step.vocab, step.vocab, step.dtype, buffers[0],
                                     targets->as<std::int32_t>(), scale->as<float>(), true,
                                     static_cast<float*>(buffers[1]), stream);
          }};
}

StepKernel sum_squares(const Step& /*step*/) {
  const std::size_t values = kAdapterElements * sizeof(float);
  return {"",
          static_cast<double>(values),
          {values, optimized::kSumPartials * sizeof(double), sizeof(double)},
          [](const Buffers& buffers, cudaStream_t stream) {
            optimized::sum_squares(static_cast<const float*>(buffers[0]), kAdapterElements,
                                   static_cast<double*>(buffers[1]), static_cast<double*>(buffers[2]), stream);
          }};
}

StepKernel adamw(const Step& step) {
  const std::size_t state = step.bytes(kAdapterElements);
  const std::size_t gradient = kAdapterElements * sizeof(float);
  const auto factor = upload(std::vector<float>{1.0F});
  const auto run = [step, factor](const Buffers& buffers, cudaStream_t stream) {
    optimized::adamw_update({{}, 1e-4, 10, step.dtype, step.dtype}, kAdapterElements, buffers[0],
                            static_cast<const float*>(buffers[3]), factor->as<float>(), buffers[1], buffers[2], stream);
  };
  return {"", static_cast<double>(6 * state + gradient), {state, state, state, gradient}, run};
}

StepKernel adamw8bit(const Step& step) {
  const std::size_t parameter = step.bytes(kAdapterElements);
  const std::size_t codes = kAdapterElements;
  const std::size_t absmax = kAdapterElements / kMomentBlocksize * sizeof(float);
  const std::size_t gradient = kAdapterElements * sizeof(float);
  const auto factor = upload(std::vector<float>{1.0F});
  const auto map = upload(std::vector<float>(dynamic_map().begin(), dynamic_map().end()));
  const auto map_sq = upload(std::vector<float>(unsigned_dynamic_map().begin(), unsigned_dynamic_map().end()));
  const auto run = [step, factor, map, map_sq](const Buffers& buffers, cudaStream_t stream) {
    optimized::adamw8bit_update(
        {{}, 1e-4, 10, step.dtype}, kAdapterElements, buffers[0], static_cast<const float*>(buffers[1]),
        factor->as<float>(),
        {static_cast<std::uint8_t*>(buffers[2]), static_cast<float*>(buffers[3]), map->as<float>()},
        {static_cast<std::uint8_t*>(buffers[4]), static_cast<float*>(buffers[5]), map_sq->as<float>()}, stream);
  };
  return {"",
          static_cast<double>(2 * parameter + gradient + 4 * codes + 4 * absmax),
          {parameter, gradient, codes, absmax, codes, absmax},
          run};
}

template <StepKernel (*kMake)(const AdaptedLayer&)>
StepKernel of_adapters(const Step& step) {
  return kMake({step.tokens, step.hidden, step.intermediate, step.dtype});
}

const std::map<std::string, StepKernel (*)(const Step&)> kMakers = {
    {"embedding", embedding},
    {"rmsnorm", rmsnorm},
    {"rmsnorm_backward", rmsnorm_backward},
    {"rope", rope},
    {"swiglu", swiglu},
    {"swiglu_backward", swiglu_backward},
    {"dropout", dropout},
    {"cross_entropy", cross_entropy},
    {"sum_squares", sum_squares},
    {"adamw", adamw},
    {"adamw8bit", adamw8bit},
    {"dropout_masks", of_adapters<dropout_masks_kernel>},
    {"lora_down", of_adapters<lora_down_kernel>},
    {"lora_up_add", of_adapters<lora_up_add_kernel>},
    {"lora_up_backward", of_adapters<lora_up_backward_kernel>},
    {"lora_down_backward", of_adapters<lora_down_backward_kernel>},
    {"lora_input_gradient", of_adapters<lora_input_gradient_kernel>},
    {"lora_layer", of_adapters<lora_layer_kernel>}};

/// "model:llama-2-70b/tokens:2048/dtype:bf16", or what stands in its place where a kernel knows no tokens.
std::string size_of_kernel(const std::string& kernel, const Step& step) {
  const std::string dtype = step.dtype == DType::f32 ? "f32" : step.dtype == DType::bf16 ? "bf16" : "f16";
  if (kernel == "sum_squares") return fmt::format("elements:{}/dtype:f32", kAdapterElements);
  if (kernel.starts_with("adamw")) return fmt::format("elements:{}/dtype:{}", kAdapterElements, dtype);
  const std::int64_t tokens = kernel == "cross_entropy" ? kLogitRows : step.tokens;
  return fmt::format("model:{}/tokens:{}/dtype:{}", step.model, tokens, dtype);
}

}  // namespace

std::vector<StepKernel> step_kernels_of(const Options& options) {
  std::vector<StepKernel> kernels;
  for (const std::string& kernel : options.step_kernels) {
    for (const std::uint32_t word : options.dtypes) {
      qshard_problem problem{};
      problem.dtype = word;
      const DType dtype = dtype_of(problem);
      if (kernel.starts_with("attention")) {
        std::ranges::move(attention_rows(kernel, dtype), std::back_inserter(kernels));
        continue;
      }
      if (kernel.starts_with("adapted_product")) {
        std::ranges::move(adapted_product_rows(kernel, dtype), std::back_inserter(kernels));
        continue;
      }
      for (const Step& step : {Step{"llama-2-70b", 2048, 8192, 28672, 32000, dtype},
                               Step{"llama-3-8b", 4096, 4096, 14336, 128256, dtype}}) {
        const std::string name = fmt::format("{}/provider:qshard/{}", kernel, size_of_kernel(kernel, step));
        const bool known = std::ranges::any_of(kernels, [&](const StepKernel& other) { return other.name == name; });
        if (known) continue;
        kernels.push_back(kMakers.at(kernel)(step));
        kernels.back().name = name;
      }
    }
  }
  return kernels;
}

void StepKernelRow::prepare(const Session& session) {
  const nvtx3::scoped_range range("prepare");
  const auto copies = static_cast<std::size_t>(6.0 * static_cast<double>(session.device.l2_bytes) / kernel_.bytes) + 1;
  for (std::size_t i = 0; i < copies; ++i) {
    std::vector<DeviceBuffer>& copy = copies_.emplace_back();
    for (const std::size_t bytes : kernel_.buffers) {
      copy.emplace_back(bytes);
      fill_random_bf16(copy.back().as(), bytes / 2, copy.size());
    }
  }
  const double first = time(session, static_cast<int>(copies)).seconds;
  calls_ = calls_of_batch(batch_seconds_, first, static_cast<int>(copies));
}

Sample StepKernelRow::time(const Session& session, int calls) {
  std::vector<Buffers> pointers;
  for (const std::vector<DeviceBuffer>& copy : copies_) {
    Buffers& buffers = pointers.emplace_back();
    for (const DeviceBuffer& buffer : copy) buffers.push_back(buffer.as());
  }
  return time_calls(calls, kStream, session.clocks,
                    [&](int i) { kernel_.run(pointers[static_cast<std::size_t>(i) % pointers.size()], kStream); });
}

Sample StepKernelRow::measure(const Session& session) {
  if (copies_.empty()) prepare(session);
  const nvtx3::scoped_range range(name());
  const Sample sample = time(session, calls_);
  Traffic traffic;
  traffic.bytes_read = kernel_.bytes;
  traffic.flops = kernel_.flops;
  const double floor = floor_seconds(traffic, session.ceilings, false);
  if (!(sample.seconds >= floor)) {
    fail(ExitCode::check_failed,
         "{:.3g} us is below the {:.3g} us that the measured ceilings allow: it cannot have done the work",
         1e6 * sample.seconds, 1e6 * floor);
  }
  seconds_.push_back(sample.seconds);
  return sample;
}

double StepKernelRow::median_seconds() const {
  return median(seconds_);
}

namespace {

std::string format_flops(double flops_per_second, const Ceilings& ceilings) {
  if (flops_per_second == 0) return "- | -";
  return fmt::format("{:.0f} | {:.1f} %", 1e-12 * flops_per_second, 100 * flops_per_second / ceilings.product);
}

}  // namespace

std::string format_step_kernels(const std::vector<std::unique_ptr<StepKernelRow>>& rows, const Ceilings& ceilings) {
  std::string table =
      "| kernel | time | GB/s | of copy | TFLOP/s | of product |\n| --- | ---: | ---: | ---: | ---: | ---: |\n";
  for (const auto& row : rows) {
    if (!row->error.empty()) {
      table += fmt::format("| {} | failed: {} |\n", row->name(), row->error);
      continue;
    }
    const double seconds = row->median_seconds();
    const double bandwidth = row->bytes() / seconds;
    table += fmt::format("| {} | {:.2f} us | {:.0f} | {:.1f} % | {} |\n", row->name(), 1e6 * seconds, bandwidth * 1e-9,
                         100 * bandwidth / ceilings.copy, format_flops(row->flops() / seconds, ceilings));
  }
  return table;
}

}  // namespace qshard::bench
