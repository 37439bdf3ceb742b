#include "core/sharding/layer_time.h"

#include <algorithm>
#include <array>
#include <span>

#include "core/model/lora_targets.h"
#include "core/model/module_table.h"

namespace qshard {

namespace {

constexpr double kElement = 2;      // bytes of an activation, an adapter's or a dense weight's element
constexpr double kMaskBit = 0.125;  // bytes of a dropout mask for each element
constexpr double kLossColumns = 2;  // times that cross-entropy reads or writes the logits
constexpr double kTileRows = 256;   // of a product that dequantizes in its kernel; its first tile waits for the weight

/// Times of kernels of each kind.
class Kernels {
 public:
  Kernels(const QuantizationOptions& quantization, const BatchBound& batch, const DeviceNumbers& numbers)
      : numbers_(numbers), tokens_(static_cast<double>(batch.tokens)) {
    if (!quantization.load_in_4bit) return;
    const double blocks = 1.0 / quantization.blocksize;
    weight_bytes_ = 0.5 + (quantization.double_quant ? blocks * (1 + 4.0 / 256) : 4 * blocks);
    weight_bytes_ += kElement * (numbers.fused_dequantization ? std::min(1.0, kTileRows / tokens_) : 1);
  }

  [[nodiscard]] double elements(std::int64_t columns) const { return tokens_ * static_cast<double>(columns); }

  [[nodiscard]] double time(double operations, double rate, double bytes, double kernels = 1) const {
    const double device = operations / rate + bytes / numbers_.memory_rate + kernels * numbers_.kernel_time;
    return std::max(device, kernels * numbers_.launch_time);
  }
  /// Reads and writes so many values of each token.
  [[nodiscard]] double moving(std::int64_t columns, double kernels = 1) const {
    return time(0, 1, kElement * elements(columns), kernels);
  }
  [[nodiscard]] double product(const LinearModule& module) const {
    const double weights = static_cast<double>(module.out) * static_cast<double>(module.in);
    return time(2 * tokens_ * weights, numbers_.product_rate, weight_bytes_ * weights);
  }
  /// One of the skinny products of an adapter, over `columns` features, with so many bytes for each token.
  [[nodiscard]] double adapter(double rank_columns, double bytes, double kernels) const {
    return time(2 * tokens_ * rank_columns, numbers_.adapter_products * numbers_.product_rate, tokens_ * bytes,
                kernels);
  }

 private:
  const DeviceNumbers& numbers_;
  double tokens_;
  double weight_bytes_ = 0;
};

class LayerKernels {
 public:
  LayerKernels(const ModelConfig& model, std::int64_t layer, const QuantizationOptions& quantization,
               const LoraOptions& lora, const BatchBound& batch, const DeviceNumbers& numbers)
      : model_(model), numbers_(numbers), kernels_(quantization, batch, numbers), modules_(layer_modules(model)) {
    for (std::size_t role = 0; role < kProjections; ++role) {
      ranks_[role] = is_target(lora.target_modules, modules_[role].name) ? lora.r : 0;
    }
    mask_bytes_ = lora.dropout > 0 ? kMaskBit : 0;
    const auto length = static_cast<double>(batch.longest);
    const auto window = static_cast<double>(model.window(layer));
    const double keys = window > 0 && window < length ? window * (1 - window / (2 * length)) : length / 2;
    attention_operations_ = 4 * kernels_.elements(model.num_attention_heads * model.head_dim) * keys;
  }

  [[nodiscard]] KernelTimes forward(bool whole) const {
    KernelTimes times = masks();
    times.others += kernels_.moving(2 * model_.hidden_size);
    times += forward(kQueryKeyValue, whole);
    rotate(times);
    times.attention += attention(1, numbers_.attention_forward);
    times += forward(kOutput, whole);
    times.others += kernels_.moving(3 * model_.hidden_size) + kernels_.moving(2 * model_.hidden_size);
    times += forward(kGateUp, whole);
    if (!whole) return times;
    times.others += kernels_.moving(3 * model_.intermediate_size) + kernels_.moving(3 * model_.hidden_size);
    times += forward(kDown, true);
    return times;
  }

  [[nodiscard]] KernelTimes backward() const {
    KernelTimes times;  // the masks are those of the recomputation, or kept
    times += backward(kDown);
    times.others += kernels_.moving(6 * model_.intermediate_size);  // SwiGLU again, and its gradients
    // Each half's norm again, and its gradient, which takes in the residual's.
    for (int half = 0; half < 2; ++half) times.others += kernels_.moving(5 * model_.hidden_size);
    times += backward(kGateUp);
    times += backward(kOutput);
    times.attention += attention(2.5, numbers_.attention_backward);
    rotate(times);
    times += backward(kQueryKeyValue);
    return times;
  }

 private:
  using Roles = std::span<const Projection>;

  [[nodiscard]] const LinearModule& module(Projection role) const { return modules_[static_cast<std::size_t>(role)]; }
  [[nodiscard]] double rank(Projection role) const { return ranks_[static_cast<std::size_t>(role)]; }

  /// All masks of the layer, one bit for each element of an input.
  [[nodiscard]] KernelTimes masks() const {
    KernelTimes times;
    if (mask_bytes_ == 0) return times;
    double bytes = 0;
    for (const LinearModule& each : modules_) bytes += mask_bytes_ * kernels_.elements(each.in);
    times.others = kernels_.time(0, 1, bytes);
    return times;
  }

  void rotate(KernelTimes& times) const {
    const std::int64_t heads = model_.num_attention_heads + model_.num_key_value_heads;
    const int passes = model_.qk_norm ? 2 : 1;
    times.others += passes * kernels_.moving(2 * heads * model_.head_dim, 2);
  }

  [[nodiscard]] double attention(double times_forward, double share) const {
    return kernels_.time(times_forward * attention_operations_, share * numbers_.product_rate, 0);
  }

  /// Sum of ranks, and how many adapters there are, of projections that share an input.
  [[nodiscard]] std::pair<double, double> adapters_of(Roles roles) const {
    double ranks = 0;
    double count = 0;
    for (const Projection role : roles) {
      ranks += rank(role);
      if (rank(role) > 0) ++count;
    }
    return {ranks, count};
  }

  /// x A^T of all: reads x once, and the masks.
  [[nodiscard]] double down(Roles roles) const {
    const auto [ranks, count] = adapters_of(roles);
    const auto in = static_cast<double>(module(roles[0]).in);
    return count > 0 ? kernels_.adapter(ranks * in, kElement * (in + ranks) + count * mask_bytes_ * in, 2) : 0;
  }

  /// with_h: also what adapters take from their input, x A^T, which is kept from the forward pass.
  [[nodiscard]] KernelTimes forward(Roles roles, bool with_h) const {
    KernelTimes times;
    if (with_h) times.adapters = down(roles);
    for (const Projection role : roles) {
      const auto out = static_cast<double>(module(role).out);
      times.products += kernels_.product(module(role));
      if (rank(role) > 0) times.adapters += kernels_.adapter(rank(role) * out, 2 * kElement * out, 1);
    }
    return times;
  }

  /// dx of all, dA and dB.
  [[nodiscard]] KernelTimes backward(Roles roles) const {
    KernelTimes times;
    const auto in = static_cast<double>(module(roles[0]).in);
    for (const Projection role : roles) {
      const auto out = static_cast<double>(module(role).out);
      times.products += kernels_.product(module(role));
      if (rank(role) > 0) times.adapters += kernels_.adapter(2 * rank(role) * out, 2 * kElement * out, 3);
    }
    const auto additions = static_cast<double>(roles.size() - 1);
    times.others += additions * kernels_.moving(3 * module(roles[0]).in);
    const auto [ranks, count] = adapters_of(roles);
    if (count == 0) return times;
    const double masks = count * mask_bytes_ * in;
    times.adapters += kernels_.adapter(ranks * in, kElement * in + masks, 2);
    times.adapters += kernels_.adapter(ranks * in, 2 * kElement * in + masks, 1);
    return times;
  }

  static constexpr std::array kQueryKeyValue{Projection::q, Projection::k, Projection::v};
  static constexpr std::array kOutput{Projection::o};
  static constexpr std::array kGateUp{Projection::gate, Projection::up};
  static constexpr std::array kDown{Projection::down};

  const ModelConfig& model_;
  const DeviceNumbers& numbers_;
  Kernels kernels_;
  std::array<LinearModule, kProjections> modules_;
  std::array<double, kProjections> ranks_{};
  double mask_bytes_ = 0;
  double attention_operations_ = 0;
};

}  // namespace

KernelTimes& KernelTimes::operator+=(const KernelTimes& other) {
  products += other.products;
  adapters += other.adapters;
  attention += other.attention;
  others += other.others;
  return *this;
}

LayerTimes layer_times(const ModelConfig& model, std::int64_t layer, const QuantizationOptions& quantization,
                       const LoraOptions& lora, const BatchBound& batch, const DeviceNumbers& numbers) {
  const LayerKernels kernels(model, layer, quantization, lora, batch, numbers);
  return {kernels.forward(true), kernels.forward(false), kernels.backward()};
}

KernelTimes head_times(const ModelConfig& model, const BatchBound& batch, const DeviceNumbers& numbers) {
  const Kernels kernels({.load_in_4bit = false}, batch, numbers);
  LinearModule head;
  head.out = model.vocab_size;
  head.in = model.hidden_size;
  KernelTimes times;
  times.products = 2 * kernels.product(head);
  times.others = kernels.moving(static_cast<std::int64_t>(kLossColumns) * model.vocab_size) +
                 kernels.moving(2 * model.hidden_size) + kernels.moving(4 * model.hidden_size);
  return times;
}

KernelTimes optimizer_times(double elements, const DeviceNumbers& numbers) {
  KernelTimes times;
  times.others = 24 * elements / numbers.memory_rate + 3 * numbers.kernel_time;
  return times;
}

}  // namespace qshard
