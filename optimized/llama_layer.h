#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "core/model/model_config.h"
#include "core/model/module_table.h"
#include "optimized/device/arena.h"
#include "optimized/frozen_linear.h"
#include "optimized/step_resources.h"
#include "optimized/token_rows.h"

namespace qshard::optimized {

/// An adapter of a linear layer: A [r, in] and B [out, r] in the activations' dtype, and where their gradients are
/// added up, float (null in a forward pass alone).
struct LoraPointers {
  std::int64_t rank = 0;  // 0: no adapter
  double scaling = 1;     // alpha / rank
  const void* a = nullptr;
  const void* b = nullptr;
  float* a_gradient = nullptr;
  float* b_gradient = nullptr;
};

struct LinearPointers {
  FrozenWeight weight;
  const void* bias = nullptr;  // [out], or null
  LoraPointers lora;
};

/// The weights of one decoder layer as plain pointers; all null in a dry run.
struct LayerWeights {
  const void* input_norm = nullptr;
  const void* post_attention_norm = nullptr;
  const void* query_norm = nullptr;  // [head_dim] where the family norms heads
  const void* key_norm = nullptr;
  std::array<LinearPointers, kProjections> projections;  // index = role
};

/// What a layer needs besides its weights and input.
struct LayerContext {
  const ModelConfig* config = nullptr;
  const TokenRows* rows = nullptr;
  const float* cos = nullptr;  // rotary tables [positions, head_dim / 2], rounded to dtype
  const float* sin = nullptr;
  DType dtype = DType::bf16;
  double lora_dropout = 0.0;  // 0 in evaluation
  std::uint64_t dropout_seed = 0;
  std::uint64_t step = 0;
  std::int64_t layer = 0;
};

/// What the backward pass needs of a forward pass: kept from it, or made again from the layer's input. The norms' and
/// SwiGLU's results are cheap to make, together with their gradients, and are never kept.
struct LayerActivations {
  Arena::Piece qkv;               // before heads are normed; after RoPE where they are not   [tokens, q + 2 kv]
  Arena::Piece rotated;           // the same after norms and RoPE, where heads are normed    [tokens, q + 2 kv]
  Arena::Piece attention_output;  // before o_proj                                            [tokens, q]
  Arena::Piece lse;               // of attention                                             [heads, tokens] float
  Arena::Piece mlp_residual;      // x + attention                                            [tokens, hidden]
  Arena::Piece gate_up;           // [tokens, 2 intermediate]; empty: made again in the backward pass
  /// h = dropout(x) A^T of every adapter, one projection's behind the other's [tokens, lora_rank_stride(r)]. Of every
  /// layer this is kept from the forward pass: it is small beside the layer's input, and making it reads all inputs.
  Arena::Piece lora_h;
  Arena::Piece masks;  // of dropout, as bits; may be given back between the passes, and is then made again

  /// Gives back what layer_activations() makes again: everything but lora_h.
  void give_back() {
    LayerActivations kept;
    kept.lora_h = std::move(lora_h);
    *this = std::move(kept);
  }
};

/// y = layer(x), x and y [tokens, hidden]; fills `activations`, gate_up only where they are to be kept. Deterministic.
void layer_forward(const StepResources& resources, const LayerContext& context, const LayerWeights& weights,
                   const void* x, void* y, bool keep, LayerActivations& activations);

/// The activations alone, for recomputation, from x and the forward pass' lora_h, but those of the feed-forward half:
/// the backward pass makes them tile by tile. What only y needs, the down projection, is left out.
void layer_activations(const StepResources& resources, const LayerContext& context, const LayerWeights& weights,
                       const void* x, LayerActivations& activations);

/// Turns dy [tokens, hidden] into dx in place, given the layer's input x and the activations of a forward pass over it
/// (which are used up), and adds the adapters' gradients. Where `want_dx` is false nothing below this layer learns: dy
/// is left undefined. Deterministic.
void layer_backward(const StepResources& resources, const LayerContext& context, const LayerWeights& weights,
                    const void* x, bool want_dx, void* dy, LayerActivations& activations);

}  // namespace qshard::optimized
