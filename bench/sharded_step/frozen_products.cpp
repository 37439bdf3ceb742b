#include "bench/sharded_step/frozen_products.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "core/model/module_table.h"
#include "core/tensor/codebook.h"
#include "optimized/device/cuda_check.h"
#include "optimized/device/device_buffer.h"
#include "optimized/device/stream.h"
#include "optimized/double_quant.h"
#include "optimized/linear4bit/linear4bit_plan.h"
#include "optimized/random_values.h"

namespace qshard::bench {
namespace {

using namespace optimized;

constexpr int kBlocksize = 64;
constexpr std::int64_t kConstants = 257;  // the nested map and the offset

/// A frozen linear layer, both directions of it.
struct Layer {
  LinearModule module;
  DeviceBuffer codes;
  DeviceBuffer absmax_codes;
  DeviceBuffer nested_absmax;
  DeviceBuffer constants;
  std::unique_ptr<Linear4bitPlan> forward;
  std::unique_ptr<Linear4bitPlan> backward;

  [[nodiscard]] DeviceWeight4bit weight() const {
    DeviceWeight4bit weight;
    weight.blocksize = kBlocksize;
    weight.elements = module.out * module.in;
    weight.codes = codes.as<std::uint8_t>();
    weight.absmax_codes = absmax_codes.as<std::uint8_t>();
    weight.nested_absmax = nested_absmax.as<float>();
    weight.nested_map = constants.as<float>();
    weight.offset = constants.as<float>() + 256;
    weight.resident = true;
    return weight;
  }
};

Layer make_layer(const LinearModule& module, std::int64_t tokens, MatmulPlans& plans, cudaStream_t stream) {
  const std::int64_t elements = module.out * module.in;
  const std::int64_t blocks = (elements + kBlocksize - 1) / kBlocksize;
  Layer layer;
  layer.module = module;
  layer.codes = DeviceBuffer(static_cast<std::size_t>(elements / 2));
  layer.absmax_codes = DeviceBuffer(static_cast<std::size_t>(blocks));
  layer.nested_absmax = DeviceBuffer(static_cast<std::size_t>((blocks + 255) / 256) * 4);
  layer.constants = DeviceBuffer(kConstants * 4);
  layer.constants.upload(dynamic_map().data(), 256 * 4);
  const DeviceBuffer dense(static_cast<std::size_t>(elements) * 2);
  const DeviceBuffer workspace(nested_workspace_bytes(blocks));
  random_values(static_cast<std::uint64_t>(module.role) + 1, 0, 0.02, elements, DType::bf16, dense.as(), stream);
  const NestedOutput nested{layer.absmax_codes.as<std::uint8_t>(), layer.nested_absmax.as<float>(),
                            layer.constants.as<float>() + 256};
  quantize_nested(dense.as(), DType::bf16, elements, QuantType::nf4, kBlocksize, layer.codes.as<std::uint8_t>(),
                  layer.constants.as<float>(), nullptr, nested, workspace.as(), workspace.bytes(), stream);
  QSHARD_CUDA_CHECK(cudaStreamSynchronize(stream));  // the dense weight's memory goes
  const Linear4bitShape shape{module.out, module.in, DType::bf16, QuantType::nf4, kBlocksize, true};
  const auto plan_of = [&](Linear4bitDirection direction) {
    constexpr bool kWithAddends = true;
    return std::make_unique<Linear4bitPlan>(plans, shape, tokens, direction, OtherWork{}, kWithAddends);
  };
  layer.forward = plan_of(Linear4bitDirection::forward);
  layer.backward = plan_of(Linear4bitDirection::input_gradient);
  return layer;
}

}  // namespace

struct FrozenProducts::Parts {
  MatmulPlans plans;
  std::vector<Layer> layers;
  DeviceBuffer workspace;
  DeviceBuffer in;
  DeviceBuffer out;
};

FrozenProducts::FrozenProducts(const ModelConfig& config, std::int64_t tokens) : parts_(std::make_unique<Parts>()) {
  const Stream stream;
  std::size_t workspace_bytes = 0;
  std::int64_t widest = 0;
  for (const LinearModule& module : layer_modules(config)) {
    const Layer& layer = parts_->layers.emplace_back(make_layer(module, tokens, parts_->plans, stream.get()));
    for (const auto* plan : {layer.forward.get(), layer.backward.get()}) {
      workspace_bytes = std::max(workspace_bytes, plan->workspace_bytes());
    }
    widest = std::max({widest, module.in, module.out});
  }
  parts_->workspace = DeviceBuffer(workspace_bytes);
  parts_->in = DeviceBuffer(static_cast<std::size_t>(tokens * widest) * 2);
  parts_->out = DeviceBuffer(static_cast<std::size_t>(tokens * widest) * 2);
  random_values(99, 0, 1, tokens * widest, DType::bf16, parts_->in.as(), stream.get());
  stream.synchronize();
}

FrozenProducts::~FrozenProducts() = default;

void FrozenProducts::forward(cudaStream_t stream) const {
  recomputation(stream);
  const Layer& down = parts_->layers[static_cast<std::size_t>(Projection::down)];
  down.forward->run(down.weight(), parts_->in.as(), down.module.in, parts_->out.as(), down.module.out,
                    parts_->workspace.as(), stream);
}

void FrozenProducts::recomputation(cudaStream_t stream) const {
  for (const Layer& layer : parts_->layers) {
    if (layer.module.role == Projection::down) continue;
    layer.forward->run(layer.weight(), parts_->in.as(), layer.module.in, parts_->out.as(), layer.module.out,
                       parts_->workspace.as(), stream);
  }
}

void FrozenProducts::backward(cudaStream_t stream) const {
  for (const Layer& layer : parts_->layers) {
    layer.backward->run(layer.weight(), parts_->in.as(), layer.module.out, parts_->out.as(), layer.module.in,
                        parts_->workspace.as(), stream);
  }
}

std::vector<double> time_frozen_products(const ModelConfig& config, std::int64_t tokens, int steps) {
  const FrozenProducts products(config, tokens);
  const Stream stream;
  std::vector<double> seconds;
  for (int step = 0; step < steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) products.forward(stream.get());
    for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      products.recomputation(stream.get());
      products.backward(stream.get());
    }
    stream.synchronize();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return seconds;
}

}  // namespace qshard::bench
