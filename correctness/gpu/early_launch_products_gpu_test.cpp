// As early_launch_gpu_test.cpp: 4-bit linear layers, adapters, attention and dense products.
#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "core/tensor/codebook.h"
#include "correctness/gpu/late_memory.h"
#include "optimized/attention/attention_decode.h"
#include "optimized/attention/attention_table.h"
#include "optimized/dropout_masks.h"
#include "optimized/linear4bit/linear4bit_kernels.h"
#include "optimized/linear4bit/linear4bit_plan.h"
#include "optimized/lora.h"
#include "optimized/matmul.h"

namespace qshard::test {
namespace {

class EarlyProductsGpu : public LateInputsTest {};

constexpr DType kDType = DType::bf16;

TEST_P(EarlyProductsGpu, WaitsForLateInputs) {
  expect_waits();
}

// Linear layers with a 4-bit weight.

struct Layer {
  std::int64_t out = 512;
  std::int64_t in = 1024;
  bool nested = true;
  bool resident = false;

  [[nodiscard]] optimized::Linear4bitShape shape() const { return {out, in, kDType, QuantType::nf4, 64, nested}; }
};

optimized::DeviceWeight4bit weight_of(LateMemory& memory, const Layer& layer) {
  return weight4bit(memory, layer.out * layer.in, layer.nested, layer.resident);
}

/// A plan and what it multiplies with, which must outlive it.
struct Planned {
  optimized::MatmulPlans matmul{std::size_t{4} << 20};
  optimized::Linear4bitPlan plan;

  template <typename... Kernel>
  Planned(const Layer& layer, std::int64_t rows, optimized::Linear4bitDirection direction, const Kernel&... kernel)
      : plan(matmul, layer.shape(), rows, direction, kernel...) {}
};

constexpr auto kForward = optimized::Linear4bitDirection::forward;
constexpr auto kGradient = optimized::Linear4bitDirection::input_gradient;

Enqueue linear4bit(LateMemory& memory, std::string_view kernel, const Layer& layer, std::int64_t rows,
                   optimized::Linear4bitDirection direction) {
  const auto planned = std::make_shared<Planned>(layer, rows, direction, kernel);
  const optimized::Linear4bitProblem& problem = planned->plan.problem();
  const std::int64_t in_width = problem.in_width();
  const std::int64_t out_width = problem.out_width();
  const optimized::DeviceWeight4bit weight = weight_of(memory, layer);
  const void* in = memory.late_normal(rows * in_width);
  void* out = memory.result(rows * out_width);
  void* workspace = memory.workspace(planned->plan.workspace_bytes());
  return [=](cudaStream_t stream) { planned->plan.run(weight, in, in_width, out, out_width, workspace, stream); };
}

/// Every kernel in every direction, with the most of these rows that it takes.
std::vector<LateOperation> linear4bit_operations() {
  constexpr optimized::Linear4bitDevice kHopper{132, 227 << 10, true};
  std::vector<LateOperation> operations;
  for (const optimized::Linear4bitKernel& kernel : optimized::linear4bit_kernels()) {
    for (const auto direction : {kForward, kGradient}) {
      for (const bool nested : {false, true}) {
        const Layer layer{.nested = nested};
        for (const std::int64_t rows : {320, 40, 3}) {
          if (!kernel.supports({layer.shape(), rows, direction, kHopper})) continue;
          operations.push_back({fmt::format("{}_{}{}", kernel.name, direction == kForward ? "forward" : "gradient",
                                            nested ? "_nested" : ""),
                                [name = kernel.name, layer, rows, direction](LateMemory& memory) {
                                  return linear4bit(memory, name, layer, rows, direction);
                                }});
          break;
        }
      }
    }
  }
  return operations;
}

INSTANTIATE_TEST_SUITE_P(Linear4bit, EarlyProductsGpu, testing::ValuesIn(linear4bit_operations()),
                         EarlyProductsGpu::name_of);

// What few_rows_tma reads of a resident weight before it waits is there from the start; its input is late.
Enqueue resident_weight(LateMemory& memory) {
  return linear4bit(memory, "few_rows_tma", {.resident = true}, 3, kForward);
}

/// h B^T forward, g A with a mask in the gradient.
Enqueue addends(LateMemory& memory, optimized::Linear4bitDirection direction) {
  constexpr std::int64_t kRows = 320;
  constexpr std::int64_t kRank = 16;
  const Layer layer;
  const auto planned = std::make_shared<Planned>(layer, kRows, direction, "many_rows");
  const std::int64_t in_width = planned->plan.problem().in_width();
  const std::int64_t out_width = planned->plan.problem().out_width();
  const optimized::DeviceWeight4bit weight = weight_of(memory, layer);
  const void* in = memory.late_normal(kRows * in_width);
  optimized::Linear4bitAddends addends;
  addends.adapter = {kRank, memory.late_normal(kRows * kRank), kRank, memory.late_normal(out_width * kRank)};
  addends.add_to_out = true;
  if (direction == kGradient) {
    addends.adapter.mask = memory.late_bytes(kRows * optimized::dropout_mask_stride(out_width));
  }
  void* out = memory.updated_normal(kRows * out_width);
  void* workspace = memory.workspace(planned->plan.workspace_bytes());
  return
      [=](cudaStream_t stream) { planned->plan.run(weight, in, in_width, out, out_width, workspace, stream, addends); };
}

/// Two products of one input: up to 4 rows by few_rows_tma, more by warpgroup.
Enqueue products_of_one_input(LateMemory& memory, std::int64_t rows) {
  const Layer first{.out = 1536, .in = 4096};
  const Layer second{.out = 1024, .in = 4096};
  const auto both = std::make_shared<std::pair<Planned, Planned>>(std::piecewise_construct,
                                                                  std::forward_as_tuple(first, rows, kForward),
                                                                  std::forward_as_tuple(second, rows, kForward));
  const Planned whole({.out = first.out + second.out, .in = first.in}, rows, kForward);
  const std::size_t bytes = 2 * whole.plan.workspace_bytes();
  const optimized::DeviceWeight4bit weights[] = {weight_of(memory, first), weight_of(memory, second)};
  const void* in = memory.late_normal(rows * first.in);
  void* const outs[] = {memory.result(rows * first.out), memory.result(rows * second.out)};
  void* workspace = memory.workspace(bytes);
  return [=](cudaStream_t stream) {
    const optimized::Linear4bitProduct products[] = {{&both->first.plan, &weights[0], outs[0], first.out},
                                                     {&both->second.plan, &weights[1], outs[1], second.out}};
    EXPECT_TRUE(optimized::Linear4bitPlan::run_together(products, in, first.in, workspace, bytes, stream));
  };
}

INSTANTIATE_TEST_SUITE_P(
    Linear4bitOf, EarlyProductsGpu,
    testing::Values(
        LateOperation{"a_resident_weight", resident_weight},
        LateOperation{"addends_forward", [](LateMemory& memory) { return addends(memory, kForward); }},
        LateOperation{"addends_gradient", [](LateMemory& memory) { return addends(memory, kGradient); }},
        LateOperation{"one_input_few_rows", [](LateMemory& memory) { return products_of_one_input(memory, 3); }},
        LateOperation{"one_input_more_rows", [](LateMemory& memory) { return products_of_one_input(memory, 16); }}),
    EarlyProductsGpu::name_of);

// Adapters, of a rank that Hopper's matrix instructions take, of one that they do not, and in f32.

struct Adapter {
  DType dtype;
  std::int64_t rank;

  static constexpr std::int64_t kTokens = 512;  // sums over tokens are cut into slices
  static constexpr std::int64_t kFeatures = 512;

  [[nodiscard]] std::int64_t stride() const { return optimized::lora_rank_stride(rank); }
  [[nodiscard]] optimized::LoraInputShape input() const { return {kTokens, kFeatures, dtype, 0.5}; }
  [[nodiscard]] optimized::LoraOutputShape output() const { return {kTokens, kFeatures, rank, dtype, 0.5}; }

  [[nodiscard]] const void* activations(LateMemory& memory) const {
    return memory.late_normal(kTokens * kFeatures, dtype);
  }
  /// h or g.
  [[nodiscard]] const void* factor(LateMemory& memory) const { return memory.late_normal(kTokens * stride(), dtype); }
  /// A or B.
  [[nodiscard]] const void* weight(LateMemory& memory) const { return memory.late_normal(rank * kFeatures, dtype); }
  [[nodiscard]] static const std::uint8_t* mask(LateMemory& memory) {
    return memory.late_bytes(kTokens * optimized::dropout_mask_stride(kFeatures));
  }
};

Enqueue lora_down(LateMemory& memory, const Adapter& of) {
  const void* x = of.activations(memory);
  const optimized::LoraDown task{of.weight(memory), of.rank, Adapter::mask(memory),
                                 memory.result(Adapter::kTokens * of.stride(), of.dtype)};
  const std::size_t bytes = optimized::lora_input_workspace_bytes(of.input(), {&of.rank, 1});
  void* workspace = memory.workspace(bytes);
  return [=](cudaStream_t stream) {
    optimized::lora_down(of.input(), x, Adapter::kFeatures, {&task, 1}, workspace, bytes, stream);
  };
}

Enqueue lora_up_add(LateMemory& memory, const Adapter& of) {
  const void* h = of.factor(memory);
  const void* b = of.weight(memory);
  void* y = memory.updated_normal(Adapter::kTokens * Adapter::kFeatures, of.dtype);
  return [=](cudaStream_t stream) { optimized::lora_up_add(of.output(), h, b, y, Adapter::kFeatures, stream); };
}

Enqueue lora_up_backward(LateMemory& memory, const Adapter& of) {
  const void* dy = of.activations(memory);
  const void* h = of.factor(memory);
  const void* b = of.weight(memory);
  void* g = memory.result(Adapter::kTokens * of.stride(), of.dtype);
  float* db = memory.updated(memory.random_floats(of.rank * Adapter::kFeatures));
  const std::size_t bytes = optimized::lora_output_workspace_bytes(of.output());
  void* workspace = memory.workspace(bytes);
  return [=](cudaStream_t stream) {
    optimized::lora_up_backward(of.output(), dy, Adapter::kFeatures, h, b, g, db, workspace, bytes, stream);
  };
}

Enqueue lora_down_backward(LateMemory& memory, const Adapter& of) {
  const void* x = of.activations(memory);
  const optimized::LoraDownBackward task{of.factor(memory), of.rank, Adapter::mask(memory),
                                         memory.updated(memory.random_floats(of.rank * Adapter::kFeatures))};
  const std::size_t bytes = optimized::lora_input_workspace_bytes(of.input(), {&of.rank, 1});
  void* workspace = memory.workspace(bytes);
  return [=](cudaStream_t stream) {
    optimized::lora_down_backward(of.input(), x, Adapter::kFeatures, {&task, 1}, workspace, bytes, stream);
  };
}

Enqueue lora_input_gradient(LateMemory& memory, const Adapter& of) {
  const optimized::LoraInputGradient task{of.factor(memory), of.weight(memory), of.rank, Adapter::mask(memory)};
  void* dx = memory.updated_normal(Adapter::kTokens * Adapter::kFeatures, of.dtype);
  return [=](cudaStream_t stream) {
    optimized::lora_input_gradient(of.input(), {&task, 1}, dx, Adapter::kFeatures, stream);
  };
}

std::vector<LateOperation> lora_operations() {
  struct Call {
    const char* name;
    Enqueue (*prepare)(LateMemory&, const Adapter&);
  };
  std::vector<LateOperation> operations;
  for (const Adapter& of : {Adapter{DType::bf16, 16}, {DType::bf16, 96}, {DType::f32, 16}}) {
    for (const Call& call : {Call{"down", lora_down},
                             {"up_add", lora_up_add},
                             {"up_backward", lora_up_backward},
                             {"down_backward", lora_down_backward},
                             {"input_gradient", lora_input_gradient}}) {
      operations.push_back({fmt::format("{}_{}_rank_{}", call.name, torch_name(of.dtype), of.rank),
                            [of, prepare = call.prepare](LateMemory& memory) { return prepare(memory, of); }});
    }
  }
  return operations;
}

INSTANTIATE_TEST_SUITE_P(Lora, EarlyProductsGpu, testing::ValuesIn(lora_operations()), EarlyProductsGpu::name_of);

// Attention by every kernel of its table, and that of one new token.

constexpr std::int64_t kHeads = 8;
constexpr std::int64_t kKvHeads = 2;
constexpr std::int64_t kHeadDim = 64;

Enqueue attention(LateMemory& memory, const optimized::AttentionKernel& kernel, bool backward) {
  const std::vector<std::int32_t> offsets{0, 100, 137, 256};
  constexpr std::int64_t kTokens = 256;
  constexpr std::int64_t kWidth = kHeads * kHeadDim;
  constexpr std::int64_t kKvWidth = kKvHeads * kHeadDim;
  const DType dtype = kernel.name == "plain" ? DType::f32 : kDType;
  const optimized::AttentionShape shape{kHeads, kKvHeads, kHeadDim, 0, kWidth, kKvWidth, kWidth, dtype};
  optimized::TokenRows rows;
  rows.offsets = memory.late(offsets, LateMemory::kIndex);
  rows.tokens = static_cast<std::int32_t>(kTokens);
  rows.rows = 3;
  rows.longest = 119;
  optimized::AttentionTensors tensors;
  tensors.q = memory.late_normal(kTokens * kWidth, dtype);
  tensors.k = memory.late_normal(kTokens * kKvWidth, dtype);
  tensors.v = memory.late_normal(kTokens * kKvWidth, dtype);
  if (backward) {
    tensors.o = memory.late_normal(kTokens * kWidth, dtype);
    tensors.lse = memory.late(memory.random_floats(kTokens * kHeads));
    tensors.dout = memory.late_normal(kTokens * kWidth, dtype);
    tensors.dq = memory.result(kTokens * kWidth, dtype);
    tensors.dk = memory.result(kTokens * kKvWidth, dtype);
    tensors.dv = memory.result(kTokens * kKvWidth, dtype);
  } else {
    tensors.o = memory.result(kTokens * kWidth, dtype);
    tensors.lse = static_cast<float*>(memory.result(kTokens * kHeads, DType::f32));
  }
  void* workspace = memory.workspace(kernel.workspace_bytes(shape, {kTokens, rows.rows, rows.longest}));
  return [=, run = backward ? kernel.backward : kernel.forward](cudaStream_t stream) {
    run(shape, rows, tensors, workspace, stream);
  };
}

/// Of one new token in each of three rows.
struct Decoding {
  optimized::AttentionDecodeShape shape;
  const std::int32_t* lengths;
  void* o;
  void* workspace;

  Decoding(LateMemory& memory, DType dtype, std::int64_t q_heads)
      : shape{3, kHeads, kKvHeads, kHeadDim, 0, 256, q_heads * kHeadDim, kHeads * kHeadDim, dtype},
        lengths(memory.late(std::vector<std::int32_t>{256, 100, 7}, LateMemory::kIndex)),
        o(memory.result(shape.rows * shape.o_stride, dtype)),
        workspace(memory.workspace(optimized::attention_decode_workspace_bytes(shape))) {}

  [[nodiscard]] std::int64_t cache_elements() const { return shape.rows * shape.capacity * kKvHeads * kHeadDim; }
};

Enqueue attention_decode(LateMemory& memory, DType dtype) {
  const Decoding of(memory, dtype, kHeads);
  const void* q = memory.late_normal(of.shape.rows * of.shape.q_stride, dtype);
  const void* keys = memory.late_normal(of.cache_elements(), dtype);
  const void* values = memory.late_normal(of.cache_elements(), dtype);
  return [=](cudaStream_t stream) {
    optimized::attention_decode(of.shape, q, keys, values, of.lengths, of.o, of.workspace, stream);
  };
}

Enqueue rotate_and_attend(LateMemory& memory) {
  const Decoding of(memory, kDType, kHeads + 2 * kKvHeads);
  const void* qkv = memory.late_normal(of.shape.rows * of.shape.q_stride);
  const float* cos = memory.late(memory.random_floats(of.shape.capacity * kHeadDim / 2));
  const float* sin = memory.late(memory.random_floats(of.shape.capacity * kHeadDim / 2));
  void* keys = memory.updated_normal(of.cache_elements());
  void* values = memory.updated_normal(of.cache_elements());
  return [=](cudaStream_t stream) {
    EXPECT_TRUE(
        optimized::rotate_and_attend(of.shape, cos, sin, qkv, keys, values, of.lengths, of.o, of.workspace, stream));
  };
}

std::vector<LateOperation> attention_operations() {
  std::vector<LateOperation> operations{
      {"of_one_token", [](LateMemory& memory) { return attention_decode(memory, kDType); }},
      {"of_one_token_in_f32", [](LateMemory& memory) { return attention_decode(memory, DType::f32); }},
      {"of_one_token_rotated", rotate_and_attend}};
  for (const optimized::AttentionKernel& kernel : optimized::attention_kernels()) {
    std::string name(kernel.name);
    std::ranges::replace(name, '-', '_');
    for (const bool backward : {false, true}) {
      operations.push_back({name + (backward ? "_backward" : "_forward"),
                            [&kernel, backward](LateMemory& memory) { return attention(memory, kernel, backward); }});
    }
  }
  return operations;
}

INSTANTIATE_TEST_SUITE_P(Attention, EarlyProductsGpu, testing::ValuesIn(attention_operations()),
                         EarlyProductsGpu::name_of);

// A product by cuBLASLt, whose kernels are not ours.
Enqueue matmul(LateMemory& memory) {
  constexpr optimized::MatmulShape kShape{
      .rows = 256, .columns = 384, .inner = 512, .a_stride = 512, .b_stride = 512, .c_stride = 384};
  const auto plans = std::make_shared<optimized::MatmulPlans>(std::size_t{4} << 20);
  const void* a = memory.late_normal(kShape.rows * kShape.inner);
  const void* b = memory.late_normal(kShape.columns * kShape.inner);
  void* c = memory.result(kShape.rows * kShape.columns);
  void* workspace = memory.workspace(plans->workspace_bytes());
  return [=](cudaStream_t stream) {
    optimized::matmul(*plans, kShape, a, b, c, workspace, plans->workspace_bytes(), stream);
  };
}

INSTANTIATE_TEST_SUITE_P(Dense, EarlyProductsGpu, testing::Values(LateOperation{"matmul", matmul}),
                         EarlyProductsGpu::name_of);

}  // namespace
}  // namespace qshard::test
