#pragma once

#include "core/model/lora_options.h"
#include "core/model/model_config.h"
#include "core/model/quantization_options.h"
#include "core/sharding/device_numbers.h"
#include "core/training/batch_bound.h"

namespace qshard {

/// Seconds of a GPU, by what its kernels do.
struct KernelTimes {
  double products = 0;  // of the frozen linear layers and the head, dequantization included
  double adapters = 0;
  double attention = 0;
  double others = 0;  // norms, rotary embedding, SwiGLU, sums, dropout masks, loss, optimizer

  [[nodiscard]] double total() const { return products + adapters + attention + others; }
  KernelTimes& operator+=(const KernelTimes& other);
};

/// Of one decoder layer and one micro-batch.
struct LayerTimes {
  KernelTimes forward;
  KernelTimes recomputation;  // the forward pass again, without the down projection, which nothing needs
  KernelTimes backward;       // gradients of the activations and of the adapters; frozen weights have none
};

/// The kernels of optimized/llama_layer/, each with
///   time = max(operations / rate + bytes / memory_rate + kernel_time, launch_time),
/// where bytes are those that must move at least and operations count where they take longer than that:
/// - product [tokens, in] x [in, out]: 2 tokens in out operations at product_rate; the weight's stored bytes, and 2
///   bytes a weight more where it is dequantized before (activations and the 16-bit weight hide behind the product),
///   or 512 / tokens where the product's kernel does it, whose first tile of 256 rows waits for the weight;
/// - attention over rows of n tokens, causal: 4 heads head_dim operations a pair of query and key, n^2 / 2 pairs a row
///   (fewer within a window), 2.5 times that in the backward pass, at the shares attention_forward and _backward;
/// - adapters of rank r: 2 tokens r (in + out) operations forward, twice that backward, at the share adapter_products,
///   and the bytes of x, y, dy and dx that optimized/lora.h says its kernels read and write;
/// - the others: bytes alone.
/// Activations have 2 bytes.
LayerTimes layer_times(const ModelConfig& model, std::int64_t layer, const QuantizationOptions& quantization,
                       const LoraOptions& lora, const BatchBound& batch, const DeviceNumbers& numbers);

/// Logits, loss and their gradient: 4 tokens hidden vocabulary operations.
KernelTimes head_times(const ModelConfig& model, const BatchBound& batch, const DeviceNumbers& numbers);

/// AdamW on so many elements with 16-bit parameters and moments: 16 bytes each, and 8 for clearing gradients and their
/// norm.
KernelTimes optimizer_times(double elements, const DeviceNumbers& numbers);

}  // namespace qshard
