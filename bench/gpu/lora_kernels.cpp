#include "bench/gpu/lora_kernels.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "optimized/dropout_masks.h"
#include "optimized/lora.h"

namespace qshard::bench {
namespace {

constexpr std::int64_t kRank = 64;
constexpr double kDropout = 0.1;
constexpr std::int64_t kKeyValueFeatures = 1024;  // of Llama-2-70B and Llama-3-8B

using Buffers = std::vector<void*>;

/// Projections that share an input: its features, and those of their outputs.
struct SharedInput {
  std::int64_t in;
  std::vector<std::int64_t> outs;
};

/// Where the tensors of one projection are among a kernel's buffers.
struct Adapter {
  std::int64_t out;
  std::size_t a, b, h, g, mask, da, db, y, dy;
};

struct AdapterGroup {
  std::int64_t in;
  std::size_t x, dx;
  std::vector<Adapter> adapters;
};

/// Adapters with their buffers, and the calls that a training step makes with them.
class LoraStep {
 public:
  LoraStep(const AdaptedLayer& layer, const std::vector<SharedInput>& inputs)
      : layer_(layer), zeros_(static_cast<std::size_t>(layer.tokens) * sizeof(std::int32_t)) {
    const std::vector<std::int32_t> zeros(layer.tokens, 0);
    zeros_.upload(zeros.data(), zeros_.bytes());
    std::size_t workspace_bytes = 0;
    for (const auto& [in, outs] : inputs) {
      AdapterGroup group{in, tensor(layer.tokens * in), tensor(layer.tokens * in), {}};
      for (const std::int64_t out : outs) {
        group.adapters.push_back({out, tensor(kRank * in), tensor(out * kRank), tensor(layer.tokens * kRank),
                                  tensor(layer.tokens * kRank), buffer(mask_bytes(in)), gradient(in), gradient(out),
                                  tensor(layer.tokens * out), tensor(layer.tokens * out)});
        workspace_bytes = std::max(workspace_bytes, optimized::lora_output_workspace_bytes(output_shape(out)));
      }
      const std::vector<std::int64_t> ranks(outs.size(), kRank);
      workspace_bytes = std::max(workspace_bytes, optimized::lora_input_workspace_bytes(input_shape(in), ranks));
      groups_.push_back(group);
    }
    workspace_ = buffer(workspace_bytes);
  }

  [[nodiscard]] const std::vector<std::size_t>& buffers() const { return sizes_; }

  /// Bytes of the buffers that `places` names of a group and its adapters.
  template <typename Places>
  [[nodiscard]] double bytes(const Places& places) const {
    double total = 0;
    for (const AdapterGroup& group : groups_) {
      for (const std::size_t place : places(group)) total += static_cast<double>(sizes_[place]);
    }
    return total;
  }

  void masks(const Buffers& buffers, cudaStream_t stream) const {
    optimized::TokenRows rows;
    rows.tokens = static_cast<std::int32_t>(layer_.tokens);
    rows.positions = zeros_.as<std::int32_t>();
    rows.row_of = zeros_.as<std::int32_t>();
    rows.row_ids = zeros_.as<std::uint32_t>();
    std::vector<optimized::DropoutMaskBits> bits;
    for (const AdapterGroup& group : groups_) {
      for (const Adapter& adapter : group.adapters) {
        bits.push_back({static_cast<std::uint32_t>(bits.size()), group.in, mask(buffers, adapter)});
      }
    }
    optimized::dropout_masks({42, 3, 5, 0, kDropout}, rows, bits, stream);
  }

  void down(const Buffers& buffers, cudaStream_t stream) const {
    for (const AdapterGroup& group : groups_) {
      std::vector<optimized::LoraDown> tasks;
      for (const Adapter& adapter : group.adapters) {
        tasks.push_back({buffers[adapter.a], kRank, mask(buffers, adapter), buffers[adapter.h]});
      }
      optimized::lora_down(input_shape(group.in), buffers[group.x], group.in, tasks, buffers[workspace_],
                           sizes_[workspace_], stream);
    }
  }

  void up_add(const Buffers& buffers, cudaStream_t stream) const {
    for (const AdapterGroup& group : groups_) {
      for (const Adapter& adapter : group.adapters) {
        optimized::lora_up_add(output_shape(adapter.out), buffers[adapter.h], buffers[adapter.b], buffers[adapter.y],
                               adapter.out, stream);
      }
    }
  }

  void up_backward(const Buffers& buffers, cudaStream_t stream) const {
    for (const AdapterGroup& group : groups_) {
      for (const Adapter& adapter : group.adapters) {
        optimized::lora_up_backward(output_shape(adapter.out), buffers[adapter.dy], adapter.out, buffers[adapter.h],
                                    buffers[adapter.b], buffers[adapter.g], static_cast<float*>(buffers[adapter.db]),
                                    buffers[workspace_], sizes_[workspace_], stream);
      }
    }
  }

  void down_backward(const Buffers& buffers, cudaStream_t stream) const {
    for (const AdapterGroup& group : groups_) {
      std::vector<optimized::LoraDownBackward> tasks;
      for (const Adapter& adapter : group.adapters) {
        tasks.push_back({buffers[adapter.g], kRank, mask(buffers, adapter), static_cast<float*>(buffers[adapter.da])});
      }
      optimized::lora_down_backward(input_shape(group.in), buffers[group.x], group.in, tasks, buffers[workspace_],
                                    sizes_[workspace_], stream);
    }
  }

  void input_gradient(const Buffers& buffers, cudaStream_t stream) const {
    for (const AdapterGroup& group : groups_) {
      std::vector<optimized::LoraInputGradient> tasks;
      for (const Adapter& adapter : group.adapters) {
        tasks.push_back({buffers[adapter.g], buffers[adapter.a], kRank, mask(buffers, adapter)});
      }
      optimized::lora_input_gradient(input_shape(group.in), tasks, buffers[group.dx], group.in, stream);
    }
  }

 private:
  std::size_t buffer(std::size_t bytes) {
    sizes_.push_back(bytes);
    return sizes_.size() - 1;
  }
  std::size_t tensor(std::int64_t elements) {
    return buffer(static_cast<std::size_t>(elements) * size_of(layer_.dtype));
  }
  std::size_t gradient(std::int64_t features) {
    return buffer(static_cast<std::size_t>(features * kRank) * sizeof(float));
  }
  [[nodiscard]] std::size_t mask_bytes(std::int64_t in) const {
    return static_cast<std::size_t>(layer_.tokens * optimized::dropout_mask_stride(in));
  }
  [[nodiscard]] optimized::LoraInputShape input_shape(std::int64_t in) const {
    return {layer_.tokens, in, layer_.dtype, kDropout};
  }
  [[nodiscard]] optimized::LoraOutputShape output_shape(std::int64_t out) const {
    return {layer_.tokens, out, kRank, layer_.dtype, 0.25};
  }
  static std::uint8_t* mask(const Buffers& buffers, const Adapter& adapter) {
    return static_cast<std::uint8_t*>(buffers[adapter.mask]);
  }

  AdaptedLayer layer_;
  DeviceBuffer zeros_;  // positions, rows and row ids
  std::vector<AdapterGroup> groups_;
  std::vector<std::size_t> sizes_;
  std::size_t workspace_ = 0;
};

using Places = std::vector<std::size_t>;

Places masks_of(const AdapterGroup& group) {
  Places places;
  for (const Adapter& adapter : group.adapters) places.push_back(adapter.mask);
  return places;
}

Places down_of(const AdapterGroup& group) {
  Places places{group.x};
  for (const Adapter& each : group.adapters) places.insert(places.end(), {each.mask, each.a, each.h});
  return places;
}

Places up_add_of(const AdapterGroup& group) {
  Places places;
  for (const Adapter& each : group.adapters) places.insert(places.end(), {each.y, each.y, each.h, each.b});
  return places;
}

Places up_backward_of(const AdapterGroup& group) {
  Places places;
  for (const Adapter& each : group.adapters) {
    places.insert(places.end(), {each.dy, each.h, each.b, each.g, each.db, each.db});
  }
  return places;
}

Places down_backward_of(const AdapterGroup& group) {
  Places places{group.x};
  for (const Adapter& each : group.adapters) places.insert(places.end(), {each.mask, each.g, each.da, each.da});
  return places;
}

Places input_gradient_of(const AdapterGroup& group) {
  Places places{group.dx, group.dx};
  for (const Adapter& each : group.adapters) places.insert(places.end(), {each.mask, each.g, each.a});
  return places;
}

/// One call of a step and the buffers that it reads and writes.
struct Part {
  void (LoraStep::*call)(const Buffers&, cudaStream_t) const;
  Places (*places)(const AdapterGroup&);
};

StepKernel kernel_of(const AdaptedLayer& layer, const std::vector<SharedInput>& inputs, std::vector<Part> parts) {
  const auto step = std::make_shared<const LoraStep>(layer, inputs);
  double bytes = 0;
  for (const Part& part : parts) bytes += step->bytes(part.places);
  return {"", bytes, step->buffers(), [step, parts = std::move(parts)](const Buffers& buffers, cudaStream_t stream) {
            for (const Part& part : parts) (*step.*part.call)(buffers, stream);
          }};
}

std::vector<SharedInput> attention_inputs(const AdaptedLayer& layer) {
  return {{layer.hidden, {layer.hidden, kKeyValueFeatures, kKeyValueFeatures}}};
}

std::vector<SharedInput> output_projection(const AdaptedLayer& layer) {
  return {{layer.hidden, {layer.hidden}}};
}

std::vector<SharedInput> whole_layer(const AdaptedLayer& layer) {
  return {{layer.hidden, {layer.hidden, kKeyValueFeatures, kKeyValueFeatures}},
          {layer.hidden, {layer.hidden}},
          {layer.hidden, {layer.intermediate, layer.intermediate}},
          {layer.intermediate, {layer.hidden}}};
}

constexpr Part kMasks{&LoraStep::masks, masks_of};
constexpr Part kDown{&LoraStep::down, down_of};
constexpr Part kUpAdd{&LoraStep::up_add, up_add_of};
constexpr Part kUpBackward{&LoraStep::up_backward, up_backward_of};
constexpr Part kDownBackward{&LoraStep::down_backward, down_backward_of};
constexpr Part kInputGradient{&LoraStep::input_gradient, input_gradient_of};

}  // namespace

StepKernel dropout_masks_kernel(const AdaptedLayer& layer) {
  return kernel_of(layer, whole_layer(layer), {kMasks});
}

StepKernel lora_down_kernel(const AdaptedLayer& layer) {
  return kernel_of(layer, attention_inputs(layer), {kDown});
}

StepKernel lora_up_add_kernel(const AdaptedLayer& layer) {
  return kernel_of(layer, output_projection(layer), {kUpAdd});
}

StepKernel lora_up_backward_kernel(const AdaptedLayer& layer) {
  return kernel_of(layer, output_projection(layer), {kUpBackward});
}

StepKernel lora_down_backward_kernel(const AdaptedLayer& layer) {
  return kernel_of(layer, attention_inputs(layer), {kDownBackward});
}

StepKernel lora_input_gradient_kernel(const AdaptedLayer& layer) {
  return kernel_of(layer, attention_inputs(layer), {kInputGradient});
}

StepKernel lora_layer_kernel(const AdaptedLayer& layer) {
  return kernel_of(layer, whole_layer(layer), {kMasks, kDown, kUpAdd, kUpBackward, kDownBackward, kInputGradient});
}

}  // namespace qshard::bench
