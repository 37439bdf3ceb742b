#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>

#include "core/tensor/float16.h"
#include "correctness/expect_error.h"
#include "correctness/gpu/gpu_testing.h"
#include "correctness/gpu/literal_kernels.h"
#include "optimized/dequantize.h"
#include "optimized/linear4bit/linear4bit_kernels.h"
#include "optimized/linear4bit/linear4bit_plan.h"
#include "optimized/step_resources.h"
#include "reference/double_quant.h"
#include "reference/quantize.h"

namespace qshard::test {
namespace {

class Linear4bitGpu : public GpuTest {};

struct Layer {
  std::int64_t out_features;
  std::int64_t in_features;
  int blocksize = 64;
  bool nested = true;
  QuantType type = QuantType::nf4;
  DType dtype = DType::bf16;
};

/// The largest error of rounding to nearest, relative to the result.
double unit_roundoff(DType dtype) {
  return dtype == DType::bf16 ? 0x1p-8 : dtype == DType::f16 ? 0x1p-11 : 0x1p-24;
}

float round_to_dtype(float value, DType dtype) {
  if (dtype == DType::bf16) return to_float(from_float<bfloat16>(value));
  if (dtype == DType::f16) return to_float(from_float<float16>(value));
  return value;
}

optimized::Linear4bitShape shape_of(const Layer& layer) {
  return {layer.out_features, layer.in_features, layer.dtype, layer.type, layer.blocksize, layer.nested};
}

optimized::Linear4bitDirection direction_of(bool forward) {
  return forward ? optimized::Linear4bitDirection::forward : optimized::Linear4bitDirection::input_gradient;
}

/// A layer with random weights on the GPU, and the exact product to compare with.
class TestLayer {
 public:
  TestLayer(const Layer& layer, std::uint64_t seed) : layer_(layer) {
    QuantizationOptions options;
    options.quant_type = layer.type;
    options.blocksize = layer.blocksize;
    options.double_quant = layer.nested;
    std::mt19937_64 generator(seed);
    std::normal_distribution<float> normal(0.0F, 0.02F);
    std::vector<float> values(layer.out_features * layer.in_features);
    for (float& value : values) value = normal(generator);
    const Tensor tensor = from_floats(values, DType::bf16, {layer.out_features, layer.in_features});
    const Weight4bit weight = reference::quantize(tensor.view(), options, "weight");
    weight_ = std::make_unique<DeviceWeight>(weight.view());
    absmax_ = std::make_unique<DeviceBuffer>(reference::decode_absmax(weight.view()));
  }

  [[nodiscard]] optimized::DeviceWeight4bit weight() const { return weight_->view(); }

  /// Fails unless each element of `out` [rows, columns] is as near to the product in double as this allows: one
  /// rounding of the result, and an addition in float for each of the inner terms, which the matrix units may truncate
  /// instead of rounding: 2^-23 of the sum of magnitudes each, and as much again for the scaled sums of blocks.
  void expect_product(const optimized::Linear4bitPlan& plan, const DeviceBuffer& in, std::int64_t in_stride,
                      const std::vector<std::byte>& out, std::int64_t out_stride) const {
    const bool forward = plan.problem().forward();
    const std::int64_t rows = plan.problem().rows;
    const std::int64_t columns = forward ? layer_.out_features : layer_.in_features;
    const std::int64_t inner = forward ? layer_.in_features : layer_.out_features;
    const bool fused = plan.rounds_codebook();
    const DeviceBuffer sums(rows * columns * sizeof(double));
    const DeviceBuffer magnitudes(rows * columns * sizeof(double));
    LiteralProduct product{weight_->view().codes,
                           absmax_->as<float>(),
                           layer_.blocksize,
                           layer_.out_features,
                           layer_.in_features,
                           codebook(layer_.type),
                           !fused,
                           layer_.dtype,
                           forward};
    if (fused) {
      for (float& value : product.codebook) value = round_to_dtype(value, layer_.dtype);
    }
    multiply(product, in.as<void>(), in_stride, rows, sums.as<double>(), magnitudes.as<double>());
    const auto sum = sums.download<double>();
    const auto magnitude = magnitudes.download<double>();
    const std::size_t element = size_of(layer_.dtype);
    const std::vector<float> found = to_floats({layer_.dtype, {static_cast<std::int64_t>(out.size() / element)}, out});
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column < columns; ++column) {
        const std::int64_t i = row * columns + column;
        const double bound = unit_roundoff(layer_.dtype) * std::fabs(sum[i]) +
                             2.0 * static_cast<double>(inner) * 0x1p-23 * magnitude[i] + 0x1p-24;
        const double difference = std::fabs(found[row * out_stride + column] - sum[i]);
        ASSERT_TRUE(difference <= bound) << "row " << row << " column " << column << ": "
                                         << found[row * out_stride + column] << " instead of " << sum[i] << " +- "
                                         << bound;
      }
      for (std::int64_t column = columns; column < out_stride && row + 1 < rows; ++column) {
        const std::size_t at = (row * out_stride + column) * element;
        ASSERT_EQ(out[at], std::byte{DeviceBuffer::kPoison}) << "written between the rows";
      }
    }
  }

 private:
  Layer layer_;
  std::unique_ptr<DeviceWeight> weight_;
  std::unique_ptr<DeviceBuffer> absmax_;
};

struct Call {
  std::int64_t rows;
  std::int64_t in_padding = 0;   // elements between the rows of the input
  std::int64_t out_padding = 0;  // of the output
  std::size_t shift = 0;         // elements that input and output begin after an aligned address
  bool forward = true;
  cudaStream_t stream = nullptr;
  bool positive = false;         // inputs of one sign: sums grow instead of cancelling
  std::string_view kernel = {};  // instead of the plan's own choice
};

optimized::Linear4bitPlan plan_of(optimized::MatmulPlans& plans, const Layer& layer, const Call& call) {
  if (call.kernel.empty()) return {plans, shape_of(layer), call.rows, direction_of(call.forward)};
  return {plans, shape_of(layer), call.rows, direction_of(call.forward), call.kernel};
}

const optimized::Linear4bitKernel& kernel_named(std::string_view name) {
  return *std::ranges::find(optimized::linear4bit_kernels(), name, &optimized::Linear4bitKernel::name);
}

/// Without the copy of an unaligned input, which a plan's workspace has room for: what the kernel itself takes, as
/// those do that cut a product into parts whose sums are added up.
std::size_t workspace_of_kernel(const optimized::Linear4bitPlan& plan) {
  return kernel_named(plan.kernel_name()).workspace_bytes(plan.problem());
}

/// The next product relies on it.
void expect_counts_are_zero(const optimized::MatmulPlans& plans) {
  std::vector<int> counts(std::size_t{optimized::MatmulPlans::kCountsOfMultiprocessor} *
                          optimized::current_linear4bit_device().multiprocessors);
  QSHARD_CUDA_CHECK(cudaMemcpy(counts.data(), plans.counts(), counts.size() * sizeof(int), cudaMemcpyDeviceToHost));
  EXPECT_TRUE(std::ranges::all_of(counts, [](int count) { return count == 0; })) << "counts are left";
}

/// Runs one call on poisoned memory, twice, and checks it in full.
void check(const TestLayer& layer, const Layer& shape, const Call& call, optimized::MatmulPlans& plans) {
  SCOPED_TRACE(fmt::format("[{}, {}] blocksize {} nested {} {} {}, rows {} padding {} {} shift {} forward {} kernel {}",
                           shape.out_features, shape.in_features, shape.blocksize, shape.nested, to_string(shape.type),
                           torch_name(shape.dtype), call.rows, call.in_padding, call.out_padding, call.shift,
                           call.forward, call.kernel));
  const std::size_t element = size_of(shape.dtype);
  const std::int64_t in_width = call.forward ? shape.in_features : shape.out_features;
  const std::int64_t out_width = call.forward ? shape.out_features : shape.in_features;
  const std::int64_t in_stride = in_width + call.in_padding;
  const std::int64_t out_stride = out_width + call.out_padding;
  std::vector<float> values(call.rows * in_stride + call.shift);
  std::mt19937_64 generator(call.rows * 7919 + in_stride);
  std::normal_distribution<float> normal;
  for (float& value : values) value = call.positive ? std::fabs(normal(generator)) : normal(generator);
  const Tensor input = from_floats(values, shape.dtype, {std::ssize(values)});
  const DeviceBuffer in(std::span<const std::byte>(input.bytes()));
  const DeviceBuffer aligned_in(input.bytes().subspan(call.shift * element));
  const optimized::Linear4bitPlan plan = plan_of(plans, shape, call);
  constexpr std::size_t kBehind = 4096;  // the workspace, which must not be written
  DeviceBuffer workspace(plan.workspace_bytes() + kBehind);

  std::vector<std::byte> first;
  for (int repeat = 0; repeat < 2; ++repeat) {
    const DeviceBuffer out((call.rows * out_stride + call.shift) * element);
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
    plan.run(layer.weight(), in.as<void>(call.shift * element), in_stride, out.as<void>(call.shift * element),
             out_stride, workspace.as<void>(), call.stream);
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
    auto bytes = out.download<std::byte>();
    bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(call.shift * element));
    if (repeat == 0) {
      first = bytes;
      layer.expect_product(plan, aligned_in, in_stride, bytes, out_stride);
    } else {
      EXPECT_EQ(differing(first, bytes), 0U) << "a second run gave other bits";
    }
  }
  expect_counts_are_zero(plans);
  EXPECT_TRUE(std::ranges::equal(in.download<std::byte>(), input.bytes())) << "the input changed";
  std::vector<std::byte> behind(kBehind);
  QSHARD_CUDA_CHECK(
      cudaMemcpy(behind.data(), workspace.as<void>(plan.workspace_bytes()), kBehind, cudaMemcpyDeviceToHost));
  EXPECT_TRUE(std::ranges::all_of(behind, [](std::byte b) { return b == std::byte{DeviceBuffer::kPoison}; }))
      << "written behind the workspace";
}

bool has_warpgroups() {
  return optimized::current_linear4bit_device().has_warpgroups;
}

TEST_F(Linear4bitGpu, EveryRowCountOfTheFusedKernels) {
  optimized::MatmulPlans plans;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Layer shape{.out_features = 272, .in_features = 1280, .dtype = dtype};
    const TestLayer layer(shape, 31);
    for (std::int64_t rows = 1; rows <= 66; ++rows) {
      check(layer, shape, {.rows = rows}, plans);
      if (rows <= optimized::kMostFusedRows) {
        check(layer, shape, {.rows = rows, .kernel = "fused"}, plans);
        if (has_warpgroups()) check(layer, shape, {.rows = rows, .kernel = "warpgroup"}, plans);
      }
      if (HasFailure()) return;
    }
  }
}

// Few rows: weight rows shared by 1 to 20 warps, of several segments, rows that end within a chunk or, where the halves
// of a tile lie beside each other, before the second one, teams with equal and unequal numbers of row tiles, scales
// copied along with the tiles, with the thread block or not at all, and sums stored in more than one batch. For one row
// either cut with each source of scales.
TEST_F(Linear4bitGpu, FewRowsOfEveryCut) {
  optimized::MatmulPlans plans;
  std::uint64_t seed = 36;
  for (const auto& [out, in, nested] :
       {std::tuple{1, 256, true}, {2500, 256, true},   {2300, 512, false},  {9000, 1024, true},  {2120, 2048, true},
        {1001, 4096, true},       {1500, 5120, true},  {777, 8192, false},  {300, 28672, true},  {2000, 320, true},
        {2648, 3584, true},       {136, 2432, true},   {520, 11008, true},  {96, 29568, false},  {96, 29568, true},
        {1001, 1152, true},       {2056, 4992, true},  {17920, 4096, true}, {25600, 1024, true}, {1064, 8192, true},
        {1128, 9216, true},       {1096, 16384, true}, {1064, 18944, true}, {1024, 4096, true},  {5288, 2560, true},
        {2120, 13824, true}}) {
    const Layer shape{.out_features = out, .in_features = in, .nested = nested};
    const TestLayer layer(shape, ++seed);
    for (const std::int64_t rows : {1, 2, 3, 4}) {
      check(layer, shape, {.rows = rows, .in_padding = 8, .out_padding = 1}, plans);
      if (HasFailure()) return;
    }
  }
}

class HopperLinear4bitGpu : public Linear4bitGpu {
 protected:
  void SetUp() override {
    Linear4bitGpu::SetUp();
    if (!IsSkipped() && !has_warpgroups()) GTEST_SKIP() << "not run: the kernel is for Hopper GPUs";
  }
};

class WarpgroupLinear4bitGpu : public HopperLinear4bitGpu {};
class ManyRowsLinear4bitGpu : public HopperLinear4bitGpu {};
class ClusterLinear4bitGpu : public HopperLinear4bitGpu, public testing::WithParamInterface<const char*> {};

// A weight that no earlier kernel writes is read before they are done: to the same bits, however its scales are found.
TEST_F(HopperLinear4bitGpu, ResidentWeightsGiveTheSameBits) {
  optimized::MatmulPlans plans;
  for (const auto& [in, nested] : {std::tuple{4096, true}, {3584, true}, {4096, false}}) {
    const Layer shape{.out_features = 1024, .in_features = in, .nested = nested};
    const TestLayer layer(shape, 57);
    for (const std::int64_t rows : {1, 2, 4}) {
      SCOPED_TRACE(fmt::format("in {} nested {} rows {}", in, nested, rows));
      const auto plan = plan_of(plans, shape, {.rows = rows});
      const DeviceBuffer x(rows * in * sizeof(bfloat16));
      fill_normal(DType::bf16, rows * in, 58, 1.0F, x.as<void>());
      const DeviceBuffer workspace(plan.workspace_bytes() + 1);
      const auto bits = [&](bool resident) {
        optimized::DeviceWeight4bit weight = layer.weight();
        weight.resident = resident;
        const DeviceBuffer y(rows * shape.out_features * sizeof(bfloat16));
        QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
        for (int launch = 0; launch < 3; ++launch) {
          plan.run(weight, x.as<void>(), in, y.as<void>(), shape.out_features, workspace.as<void>(), nullptr);
        }
        QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
        return y.download<std::byte>();
      };
      EXPECT_EQ(differing(bits(false), bits(true)), 0U);
    }
  }
}

// Several weights of one input: equal and unequal shares of the thread blocks, weights of a single tile, scales copied
// along or not. What lies between the rows of one output is another's.
TEST_F(HopperLinear4bitGpu, ProductsOfOneInput) {
  optimized::MatmulPlans plans;
  constexpr std::int64_t kElement = sizeof(bfloat16);
  std::uint64_t seed = 60;
  for (const auto& [in, outs, nested] : {std::tuple{4096, std::vector{4096, 1024, 1024}, true},
                                         {4096, std::vector{1536, 1536}, true},
                                         {256, std::vector{8, 2000, 72}, false},
                                         {8192, std::vector{16, 1000}, true}}) {
    std::vector<Layer> shapes;
    std::vector<TestLayer> layers;
    for (const int out : outs) {
      shapes.push_back({.out_features = out, .in_features = in, .nested = nested});
      layers.emplace_back(shapes.back(), ++seed);
    }
    const std::int64_t stride = std::reduce(outs.begin(), outs.end()) + 8;
    for (const std::int64_t rows : {1, 2, 3, 4, 5, 16, 40}) {
      SCOPED_TRACE(fmt::format("in {} outs {} rows {}", in, fmt::join(outs, " "), rows));
      const DeviceBuffer x(rows * in * kElement);
      fill_normal(DType::bf16, rows * in, ++seed, 1.0F, x.as<void>());
      std::vector<optimized::Linear4bitPlan> product_plans;
      for (const Layer& shape : shapes) product_plans.push_back(plan_of(plans, shape, {.rows = rows}));
      const Layer whole{.out_features = std::reduce(outs.begin(), outs.end()), .in_features = in, .nested = nested};
      const optimized::Linear4bitPlan whole_plan = plan_of(plans, whole, {.rows = rows});
      const std::string_view kernel = whole_plan.kernel_name();
      const bool takes_several = kernel == "few_rows_tma" || kernel == "warpgroup";
      EXPECT_TRUE(takes_several || rows > 4);
      // Each weight ends with a tile of its own, so that more thread blocks may share tiles.
      const std::size_t available = 2 * whole_plan.workspace_bytes();
      const DeviceBuffer workspace(available + 1);
      std::vector<std::byte> first;
      for (int repeat = 0; repeat < 2; ++repeat) {
        const DeviceBuffer y(rows * stride * kElement);
        std::vector<optimized::Linear4bitProduct> products;
        std::vector<optimized::DeviceWeight4bit> weights;
        for (const TestLayer& layer : layers) weights.push_back(layer.weight());
        std::size_t begin = 0;
        for (std::size_t i = 0; i < layers.size(); ++i) {
          products.push_back({&product_plans[i], &weights[i], y.as<void>(begin * kElement), stride});
          begin += outs[i];
        }
        const bool done = optimized::Linear4bitPlan::run_together(products, x.as<void>(), in, workspace.as<void>(),
                                                                  available, nullptr);
        ASSERT_EQ(done, takes_several) << kernel;
        if (!done) break;
        QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
        const auto bytes = y.download<std::byte>();
        if (repeat == 1) {
          EXPECT_EQ(differing(first, bytes), 0U) << "a second run gave other bits";
          continue;
        }
        first = bytes;
        std::int64_t column = 0;
        for (std::size_t i = 0; i < layers.size(); ++i) {
          std::vector<std::byte> own(bytes.size(), std::byte{DeviceBuffer::kPoison});
          for (std::int64_t row = 0; row < rows; ++row) {
            const std::int64_t at = row * stride * kElement;
            std::copy_n(bytes.begin() + at + column * kElement, outs[i] * kElement, own.begin() + at);
          }
          layers[i].expect_product(whole_plan, x, in, own, stride);  // by whose kernel it was made
          column += outs[i];
        }
        for (std::int64_t row = 0; row < rows; ++row) {
          for (std::int64_t at = (row + 1) * stride - 8; at < (row + 1) * stride; ++at) {
            EXPECT_EQ(bytes[at * kElement], std::byte{DeviceBuffer::kPoison}) << "written behind the rows";
          }
        }
        if (HasFailure()) return;
      }
      const optimized::Linear4bitPlan other = plan_of(plans, shapes[1], {.rows = rows + 1});
      const std::vector<optimized::DeviceWeight4bit> weights{layers[0].weight(), layers[1].weight()};
      const std::vector<optimized::Linear4bitProduct> unlike{{&product_plans[0], weights.data(), x.as<void>(), stride},
                                                             {&other, &weights[1], x.as<void>(), stride}};
      EXPECT_FALSE(
          optimized::Linear4bitPlan::run_together(unlike, x.as<void>(), in, workspace.as<void>(), available, nullptr))
          << "other rows";
      const std::vector<optimized::Linear4bitProduct> alike{{&product_plans[0], weights.data(), x.as<void>(), stride},
                                                            {&product_plans[1], &weights[1], x.as<void>(), stride}};
      if (rows < 5 || !takes_several) continue;
      EXPECT_FALSE(
          optimized::Linear4bitPlan::run_together(alike, x.as<void>(), in, workspace.as<void>(), 4096, nullptr))
          << "too little workspace";
    }
  }
}

// 5 to 64 rows: tiles of weight rows that a thread block has whole, that two or that many share; steps and tiles that
// end early; scales read ahead or one by one.
TEST_F(WarpgroupLinear4bitGpu, TilesOfEveryCut) {
  optimized::MatmulPlans plans;
  std::uint64_t seed = 46;
  for (const auto& [out, in, nested] : {std::tuple{1, 64, true},
                                        {193, 320, false},
                                        {192, 28672, true},
                                        {4096, 4096, true},
                                        {5000, 1088, true},
                                        {300, 384, true},
                                        {60000, 192, true},
                                        {40000, 256, false}}) {
    const Layer shape{.out_features = out, .in_features = in, .nested = nested};
    const TestLayer layer(shape, ++seed);
    for (const std::int64_t rows : {5, 8, 24, 40, 64}) {
      check(layer, shape, {.rows = rows, .in_padding = 4, .out_padding = 1, .kernel = "warpgroup"}, plans);
      if (HasFailure()) return;
    }
  }
}

// Every number of columns that the kernel is compiled for, just full and one less or more; one and several tiles of
// columns; tiles of the weight that a cluster has whole, that two or that many share; steps and tiles that end early,
// odd numbers of chunks; scales read ahead or one by one.
TEST_P(ClusterLinear4bitGpu, TilesOfEveryCut) {
  optimized::MatmulPlans plans;
  std::uint64_t seed = 160;
  for (const auto& [out, in, blocksize, nested, dtype] : {std::tuple{1, 64, 64, true, DType::bf16},
                                                          {255, 320, 64, false, DType::f16},
                                                          {256, 8192, 64, true, DType::bf16},
                                                          {257, 1088, 64, true, DType::f16},
                                                          {130, 4096, 4096, true, DType::bf16},
                                                          {1000, 768, 128, false, DType::bf16},
                                                          {64, 28672, 64, true, DType::bf16},
                                                          {5001, 256, 64, true, DType::bf16}}) {
    const Layer shape{out, in, blocksize, nested, nested ? QuantType::nf4 : QuantType::fp4, dtype};
    const TestLayer layer(shape, ++seed);
    for (const std::int64_t rows :
         {65, 96, 97, 128, 129, 160, 161, 192, 193, 255, 256, 257, 272, 288, 289, 321, 385, 417, 449, 512, 777}) {
      if (out > 5000 && rows % 64 <= 1) continue;
      check(layer, shape, {.rows = rows, .in_padding = 4, .out_padding = 1, .kernel = GetParam()}, plans);
      if (HasFailure()) return;
    }
    check(layer, shape, {.rows = 100, .in_padding = 8, .out_padding = 8, .positive = true, .kernel = GetParam()},
          plans);
    check(layer, shape, {.rows = 1000, .in_padding = 1, .out_padding = 2, .shift = 1, .kernel = GetParam()}, plans);
    if (HasFailure()) return;
  }
}

// More tiles than clusters, so that clusters have whole tiles between shared ones.
TEST_P(ClusterLinear4bitGpu, MoreTilesThanClusters) {
  optimized::MatmulPlans plans;
  for (const auto& [out, in, rows] : {std::tuple{40000, 192, 65}, {9000, 1024, 520}}) {
    const Layer shape{.out_features = out, .in_features = in};
    check(TestLayer(shape, 190), shape, {.rows = rows, .kernel = GetParam()}, plans);
  }
}

// The same of the gradient: tiles of the weight's columns, steps along its rows.
TEST_P(ClusterLinear4bitGpu, GradientTilesOfEveryCut) {
  optimized::MatmulPlans plans;
  std::uint64_t seed = 180;
  for (const auto& [out, in, blocksize, nested, dtype] : {std::tuple{1, 64, 64, true, DType::bf16},
                                                          {320, 192, 64, false, DType::f16},
                                                          {8192, 256, 64, true, DType::bf16},
                                                          {1091, 320, 64, true, DType::f16},
                                                          {130, 4096, 4096, true, DType::bf16},
                                                          {777, 1024, 128, false, DType::bf16},
                                                          {28672, 64, 64, true, DType::bf16},
                                                          {200, 9024, 64, true, DType::bf16}}) {
    const Layer shape{out, in, blocksize, nested, nested ? QuantType::nf4 : QuantType::fp4, dtype};
    const TestLayer layer(shape, ++seed);
    for (const std::int64_t rows : {1,   64,  65,  96,  97,  128, 129, 160, 161, 192, 193, 255,
                                    256, 257, 272, 288, 289, 321, 385, 417, 449, 512, 777}) {
      if (in > 5000 && rows % 64 <= 1) continue;
      check(layer, shape, {.rows = rows, .in_padding = 7, .out_padding = 1, .forward = false, .kernel = GetParam()},
            plans);
      if (HasFailure()) return;
    }
    check(layer, shape, {.rows = 100, .out_padding = 8, .forward = false, .positive = true, .kernel = GetParam()},
          plans);
    check(layer, shape,
          {.rows = 1000, .in_padding = 1, .out_padding = 2, .shift = 1, .forward = false, .kernel = GetParam()}, plans);
    if (HasFailure()) return;
  }
}

// Each kernel wants all multiprocessors, and waits for thread blocks that may have no place yet.
TEST_P(ClusterLinear4bitGpu, SeveralStreamsAtOnce) {
  on_streams(4, [kernel = GetParam()](int s, cudaStream_t stream) {
    optimized::MatmulPlans plans;
    const Layer shape{.out_features = 2816, .in_features = 6400};
    const TestLayer layer(shape, 195 + s);
    for (const std::int64_t rows : {100, 200, 300}) {
      const Call call{.rows = rows, .stream = stream, .kernel = kernel};
      EXPECT_GT(workspace_of_kernel(plan_of(plans, shape, call)), 0U) << "no tile is shared";
      check(layer, shape, call, plans);
    }
  });
}

// A product begins while the one before it ends, with the same workspace, and finds its counts at zero.
TEST_P(ClusterLinear4bitGpu, ProductsBehindEachOther) {
  struct Product {
    optimized::Linear4bitPlan plan;
    DeviceBuffer in, out;
    std::vector<std::byte> alone;
  };
  optimized::MatmulPlans plans;
  const Layer shape{.out_features = 2816, .in_features = 6400};
  const TestLayer layer(shape, 199);
  std::vector<Product> products;
  std::size_t workspace_bytes = 0;
  for (const std::int64_t rows : {100, 257, 520}) {
    for (const bool forward : {true, false}) {
      const auto plan = plan_of(plans, shape, {.rows = rows, .forward = forward, .kernel = GetParam()});
      const std::int64_t in_elements = rows * plan.problem().in_width();
      products.push_back(
          {plan, DeviceBuffer(in_elements * 2), DeviceBuffer(rows * plan.problem().out_width() * 2), {}});
      fill_normal(DType::bf16, in_elements, 200 + rows, 1.0F, products.back().in.as<void>());
      workspace_bytes = std::max(workspace_bytes, plan.workspace_bytes());
      EXPECT_GT(workspace_of_kernel(plan), 0U) << "no tile is shared";
    }
  }
  const DeviceBuffer workspace(workspace_bytes);
  const optimized::Stream stream;
  const auto run = [&](const Product& product) {
    const optimized::Linear4bitProblem& problem = product.plan.problem();
    product.plan.run(layer.weight(), product.in.as<void>(), problem.in_width(), product.out.as<void>(),
                     problem.out_width(), workspace.as<void>(), stream.get());
  };
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  for (Product& product : products) {
    run(product);
    stream.synchronize();
    product.alone = product.out.download<std::byte>();
    product.out.poison();
  }
  QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  for (int round = 0; round < 4; ++round) std::ranges::for_each(products, run);
  stream.synchronize();
  for (const Product& product : products) {
    EXPECT_EQ(differing(product.alone, product.out.download<std::byte>()), 0U) << product.plan.problem().rows;
  }
  expect_counts_are_zero(plans);
}

INSTANTIATE_TEST_SUITE_P(Kernels, ClusterLinear4bitGpu, testing::Values("wide", "middle_rows"),
                         [](const auto& test) { return std::string(test.param); });

// Tiles that end early in every direction; odd and even numbers of steps, from one on; more tiles of rows than are made
// side by side; more tiles than there are multiprocessors; tiles that clusters share, alone and behind whole ones; one
// or several blocks along a step.
TEST_F(ManyRowsLinear4bitGpu, TilesOfEveryCut) {
  optimized::MatmulPlans plans;
  std::uint64_t seed = 120;
  for (const auto& [out, in, blocksize, rows, dtype] : {std::tuple{8, 64, 64, 65, DType::bf16},
                                                        {136, 192, 64, 256, DType::f16},
                                                        {256, 128, 128, 257, DType::bf16},
                                                        {1000, 1088, 64, 300, DType::bf16},
                                                        {520, 4096, 4096, 130, DType::f16},
                                                        {17000, 3072, 64, 70, DType::bf16},
                                                        {2048, 320, 64, 2600, DType::bf16},
                                                        {40000, 256, 64, 500, DType::bf16}}) {
    for (const bool nested : {true, false}) {
      const Layer shape{out, in, blocksize, nested, nested ? QuantType::nf4 : QuantType::fp4, dtype};
      const TestLayer layer(shape, ++seed);
      for (const bool forward : {true, false}) {
        check(layer, shape, {.rows = rows, .forward = forward, .kernel = "many_rows"}, plans);
        check(layer, shape,
              {.rows = rows,
               .in_padding = 8,
               .out_padding = 16,
               .forward = forward,
               .positive = true,
               .kernel = "many_rows"},
              plans);
        if (HasFailure()) return;
      }
    }
  }
}

// 34 tiles, more than half of an H200's clusters: those that are left over take the last parts of one or two each.
TEST_F(ManyRowsLinear4bitGpu, LastPartsOfSharedTiles) {
  optimized::MatmulPlans plans;
  for (const bool forward : {true, false}) {
    const Layer shape{.out_features = forward ? 4300 : 5568, .in_features = forward ? 5568 : 4352};
    check(TestLayer(shape, 140), shape, {.rows = 257, .forward = forward, .kernel = "many_rows"}, plans);
  }
}

// What the product was made from lies in the workspace: all of the weight, of every block size, in boxes that end early
// or are whole, to the bit.
TEST_F(ManyRowsLinear4bitGpu, DequantizesToTheBitsOfDequantize) {
  constexpr std::int64_t kRows = 300;
  optimized::MatmulPlans plans;
  std::uint64_t seed = 140;
  for (const auto& [out, in, blocksize] : {std::tuple{300, 1536, 64},
                                           {17, 192, 64},
                                           {513, 1152, 128},
                                           {256, 768, 256},
                                           {40, 1536, 512},
                                           {1000, 3072, 1024},
                                           {777, 4096, 2048},
                                           {300, 8192, 4096}}) {
    for (const bool nested : {true, false}) {
      for (const DType dtype : {DType::bf16, DType::f16}) {
        const Layer shape{out, in, blocksize, nested, nested ? QuantType::nf4 : QuantType::fp4, dtype};
        const TestLayer layer(shape, ++seed);
        const DeviceBuffer expected(out * in * sizeof(std::uint16_t));
        optimized::dequantize(layer.weight(), dtype, expected.as<void>(), nullptr);
        for (const bool forward : {true, false}) {
          SCOPED_TRACE(
              fmt::format("[{}, {}] blocksize {} {} forward {}", out, in, blocksize, torch_name(dtype), forward));
          const std::int64_t in_width = forward ? in : (out + 7) / 8 * 8;
          const std::int64_t out_width = forward ? (out + 7) / 8 * 8 : in;
          const DeviceBuffer x(kRows * in_width * sizeof(std::uint16_t));
          fill_normal(dtype, kRows * in_width, seed, 1.0F, x.as<void>());
          const DeviceBuffer y(kRows * out_width * sizeof(std::uint16_t));
          const auto plan = plan_of(plans, shape, {.rows = kRows, .forward = forward, .kernel = "many_rows"});
          const DeviceBuffer workspace(plan.workspace_bytes());
          plan.run(layer.weight(), x.as<void>(), in_width, y.as<void>(), out_width, workspace.as<void>(), nullptr);
          const auto found = workspace.download<std::byte>();
          const auto wanted = expected.download<std::byte>();
          EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), found.begin()));
          if (HasFailure()) return;
        }
      }
    }
  }
}

// Beside work that holds multiprocessors the sums of shared tiles have the same order.
TEST_F(ManyRowsLinear4bitGpu, TheSameBitsBesideOtherWork) {
  optimized::MatmulPlans plans;
  for (const auto& [out, in, rows, kernel] : {std::tuple{5120, 5120, 2040, "many_rows"},
                                              {6400, 5568, 1700, "many_rows"},
                                              {5120, 5120, 300, "middle_rows"},
                                              {5120, 5120, 100, "wide"}}) {
    const Layer shape{.out_features = out, .in_features = in};
    const TestLayer layer(shape, 150);
    const DeviceBuffer x(rows * shape.in_features * size_of(shape.dtype));
    fill_normal(shape.dtype, rows * shape.in_features, 151, 1.0F, x.as<void>());
    const auto product = [&](int busy) {
      const optimized::Linear4bitPlan plan(plans, shape_of(shape), rows, optimized::Linear4bitDirection::forward,
                                           {.busy = busy, .at_most = 33});
      EXPECT_STREQ(plan.kernel_name(), kernel);
      const DeviceBuffer workspace(plan.workspace_bytes());
      DeviceBuffer y(rows * shape.out_features * size_of(shape.dtype));
      y.poison();
      plan.run(layer.weight(), x.as<void>(), shape.in_features, y.as<void>(), shape.out_features, workspace.as<void>(),
               nullptr);
      return y.download<std::uint16_t>();
    };
    const auto alone = product(0);
    for (const int busy : {2, 4, 33}) EXPECT_EQ(product(busy), alone) << kernel << ", " << busy << " are busy";
  }
}

// Each kernel wants all multiprocessors, so that thread blocks of one wait for those of another to end.
TEST_F(ManyRowsLinear4bitGpu, SeveralStreamsAtOnce) {
  on_streams(4, [](int s, cudaStream_t stream) {
    optimized::MatmulPlans plans;
    const Layer shape{.out_features = 4096, .in_features = 1024};
    const TestLayer layer(shape, 93 + s);
    for (const std::int64_t rows : {100, 600, 1100}) {
      check(layer, shape, {.rows = rows, .forward = s % 2 == 0, .stream = stream, .kernel = "many_rows"}, plans);
    }
  });
}

TEST_F(ManyRowsLinear4bitGpu, CapturedIntoAGraph) {
  const Layer shape{.out_features = 1536, .in_features = 1280};
  const TestLayer layer(shape, 95);
  optimized::MatmulPlans plans;
  constexpr std::int64_t kRows = 100;
  const auto plan = plan_of(plans, shape, {.rows = kRows, .kernel = "many_rows"});
  const DeviceBuffer x(kRows * shape.in_features * size_of(shape.dtype));
  fill_normal(shape.dtype, kRows * shape.in_features, 96, 1.0F, x.as<void>());
  DeviceBuffer y(kRows * shape.out_features * size_of(shape.dtype));
  DeviceBuffer workspace(plan.workspace_bytes());
  const optimized::Stream stream;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  QSHARD_CUDA_CHECK(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal));
  plan.run(layer.weight(), x.as<void>(), shape.in_features, y.as<void>(), shape.out_features, workspace.as<void>(),
           stream.get());
  QSHARD_CUDA_CHECK(cudaStreamEndCapture(stream.get(), &graph));
  QSHARD_CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
  for (int repeat = 0; repeat < 2; ++repeat) {
    y.poison();
    workspace.poison();
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
    QSHARD_CUDA_CHECK(cudaGraphLaunch(replay, stream.get()));
    stream.synchronize();
    layer.expect_product(plan, x, shape.in_features, y.download<std::byte>(), shape.out_features);
  }
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
}

// Each row of the table that supports a problem, whether it would be chosen or not, on the same inputs.
TEST_F(Linear4bitGpu, EveryKernelThatSupportsTheProblem) {
  optimized::MatmulPlans plans;
  int forced = 0;
  for (const Layer& shape : {Layer{.out_features = 520, .in_features = 1280},
                             Layer{.out_features = 136, .in_features = 704, .blocksize = 32, .dtype = DType::f16},
                             Layer{.out_features = 100, .in_features = 688, .nested = false}}) {
    const TestLayer layer(shape, 210);
    for (const std::int64_t rows : {1, 4, 40, 64, 300}) {
      for (const bool forward : {true, false}) {
        const auto problem = optimized::Linear4bitPlan(plans, shape_of(shape), rows, direction_of(forward)).problem();
        for (const auto& kernel : optimized::linear4bit_kernels()) {
          if (!kernel.supports(problem)) continue;
          check(layer, shape,
                {.rows = rows, .in_padding = 8, .out_padding = 8, .forward = forward, .kernel = kernel.name}, plans);
          ++forced;
          if (HasFailure()) return;
        }
      }
    }
  }
  EXPECT_GE(forced, 40);
}

// Each row of the table on inputs so small that compute-sanitizer's tools come to an end.
class SmallLinear4bitGpu : public Linear4bitGpu,
                           public testing::WithParamInterface<const optimized::Linear4bitKernel*> {};

TEST_P(SmallLinear4bitGpu, EveryDirection) {
  const optimized::Linear4bitKernel& kernel = *GetParam();
  optimized::MatmulPlans plans;
  const Layer shape{.out_features = 72, .in_features = 256};
  const TestLayer layer(shape, 230);
  int ran = 0;
  for (const std::int64_t rows : {2, 40, 72}) {
    for (const bool forward : {true, false}) {
      const auto problem = optimized::Linear4bitPlan(plans, shape_of(shape), rows, direction_of(forward)).problem();
      if (!kernel.supports(problem)) continue;
      check(layer, shape, {.rows = rows, .forward = forward, .kernel = kernel.name}, plans);
      ++ran;
    }
  }
  if (ran == 0) GTEST_SKIP() << "not run: this kernel is for other GPUs";
}

std::vector<const optimized::Linear4bitKernel*> every_kernel() {
  std::vector<const optimized::Linear4bitKernel*> kernels;
  for (const optimized::Linear4bitKernel& kernel : optimized::linear4bit_kernels()) kernels.push_back(&kernel);
  return kernels;
}

INSTANTIATE_TEST_SUITE_P(Kernels, SmallLinear4bitGpu, testing::ValuesIn(every_kernel()),
                         [](const auto& kernel) { return std::string(kernel.param->name); });

// Of a weight with few but long rows, `fused` cuts them into slices, whose sums are added afterwards.
TEST_F(Linear4bitGpu, SmallFusedInSlices) {
  optimized::MatmulPlans plans;
  const Layer shape{.out_features = 72, .in_features = 1024};
  const TestLayer layer(shape, 231);
  for (const std::int64_t rows : {16, 40, 64}) {
    const Call call{.rows = rows, .kernel = "fused"};
    EXPECT_GT(workspace_of_kernel(plan_of(plans, shape, call)), 0U) << rows << " rows are not cut";
    check(layer, shape, call, plans);
  }
}

// Clusters share a tile of few features and a long inner dimension, which they end with at once; or of three tiles the
// middle one, where one of two goes on.
TEST_F(Linear4bitGpu, SmallClustersInParts) {
  if (!has_warpgroups()) GTEST_SKIP() << "not run: these kernels are for Hopper GPUs";
  optimized::MatmulPlans plans;
  for (const auto& [kernel, out, in] :
       {std::tuple{"middle_rows", 72, 2048}, {"middle_rows", 300, 768}, {"wide", 72, 2048}, {"wide", 600, 768}}) {
    const Layer shape{.out_features = out, .in_features = in};
    const Call call{.rows = 72, .kernel = kernel};
    EXPECT_GT(workspace_of_kernel(plan_of(plans, shape, call)), 0U) << "no tile is shared";
    check(TestLayer(shape, 232), shape, call, plans);
  }
}

// Of the plans of one shape those for addends are others.
TEST_F(HopperLinear4bitGpu, PlansAreFoundByAddends) {
  optimized::MatmulPlans matmul;
  optimized::Linear4bitPlans plans;
  const auto kernel = [&](bool with_addends) {
    return std::string(plans
                           .find(matmul, shape_of({.out_features = 28672, .in_features = 8192}), 1024,
                                 direction_of(true), with_addends)
                           .kernel_name());
  };
  EXPECT_EQ(kernel(false), "middle_rows");
  EXPECT_EQ(kernel(true), "many_rows");
  EXPECT_EQ(kernel(false), "middle_rows");
}

// Blocks that run on from one row of the weight to the next: 688 and 352 features are of the adverbs example.
TEST_F(Linear4bitGpu, RowsThatEndInsideABlock) {
  optimized::MatmulPlans plans;
  std::uint64_t seed = 240;
  for (const auto& [out, in, blocksize] : {std::tuple{256, 688, 64}, {352, 352, 64}, {3, 7, 64}, {65, 97, 4096}}) {
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
      const Layer shape{out, in, blocksize, dtype != DType::f16, QuantType::nf4, dtype};
      const TestLayer layer(shape, ++seed);
      for (const std::int64_t rows : {1, 5, 64, 300}) {
        check(layer, shape, {.rows = rows}, plans);
        check(layer, shape, {.rows = rows, .in_padding = 1, .out_padding = 3, .shift = 1, .forward = false}, plans);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(Linear4bitGpu, ShapesBlocksizesTypesAndDtypes) {
  optimized::MatmulPlans plans;
  std::uint64_t seed = 41;
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const auto& [out, in, blocksize] : {std::tuple{1, 32, 32},
                                             {7, 64, 64},
                                             {16, 96, 32},
                                             {100, 192, 64},
                                             {33, 4096, 4096},
                                             {129, 2176, 128},
                                             {48, 3072, 1024},
                                             {515, 1024, 256},
                                             {1024, 11008, 64},
                                             {2048, 544, 32}}) {
      for (const bool nested : {false, true}) {
        const Layer shape{out, in, blocksize, nested, nested ? QuantType::nf4 : QuantType::fp4, dtype};
        const TestLayer layer(shape, ++seed);
        for (const std::int64_t rows : {1, 3, 5, 16, 33, 64, 130}) {
          check(layer, shape, {.rows = rows}, plans);
          check(layer, shape, {.rows = rows, .forward = false}, plans);
          const bool fused = rows <= optimized::kMostFusedRows && dtype != DType::f32;
          if (fused) check(layer, shape, {.rows = rows, .out_padding = 3, .kernel = "fused"}, plans);
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST_F(Linear4bitGpu, OddAlignmentsAndStrides) {
  optimized::MatmulPlans plans;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Layer shape{.out_features = 130, .in_features = 640, .dtype = dtype};
    const TestLayer layer(shape, 51);
    for (const std::int64_t rows : {1, 2, 9, 17, 64, 100}) {
      for (const bool forward : {true, false}) {
        check(layer, shape, {.rows = rows, .in_padding = 8, .out_padding = 1, .forward = forward}, plans);
        check(layer, shape, {.rows = rows, .in_padding = 3, .out_padding = 5, .shift = 1, .forward = forward}, plans);
        check(layer, shape, {.rows = rows, .shift = 3, .forward = forward}, plans);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(Linear4bitGpu, SumsOfOneSignKeepTheirPrecision) {
  optimized::MatmulPlans plans;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Layer shape{.out_features = 64, .in_features = 14336, .dtype = dtype};
    const TestLayer layer(shape, 61);
    for (const std::int64_t rows : {1, 4, 8, 16, 64, 65}) {
      check(layer, shape, {.rows = rows, .positive = true}, plans);
    }
  }
}

TEST_F(Linear4bitGpu, SeveralStreamsAtOnce) {
  on_streams(4, [](int s, cudaStream_t stream) {
    optimized::MatmulPlans plans;
    const Layer shape{.out_features = 1024, .in_features = 2048};
    const TestLayer layer(shape, 70 + s);
    for (const std::int64_t rows : {1, 16, 64, 128}) check(layer, shape, {.rows = rows, .stream = stream}, plans);
  });
}

TEST_F(Linear4bitGpu, RefusesBadInput) {
  optimized::MatmulPlans plans;
  const Layer shape{.out_features = 64, .in_features = 128};
  const TestLayer layer(shape, 81);
  const DeviceBuffer x(4096);
  const DeviceBuffer y(4096);
  const auto plan = plan_of(plans, shape, {.rows = 1, .kernel = "dequantize_first"});
  const DeviceBuffer workspace(plan.workspace_bytes());
  optimized::DeviceWeight4bit weight = layer.weight();
  const auto run = [&](const void* in, std::int64_t x_stride, std::int64_t y_stride, void* memory) {
    plan.run(weight, in, x_stride, y.as<void>(), y_stride, memory, nullptr);
  };
  expect_bad_input({"null"}, [&] { run(nullptr, 128, 64, workspace.as()); });
  expect_bad_input({"not aligned to 2"}, [&] { run(x.as<std::byte>(1), 128, 64, workspace.as()); });
  expect_bad_input({"stride", "input"}, [&] { run(x.as<void>(), 127, 64, workspace.as()); });
  expect_bad_input({"stride", "output"}, [&] { run(x.as<void>(), 128, 63, workspace.as()); });
  expect_bad_input({"workspace", "256"}, [&] { run(x.as<void>(), 128, 64, workspace.as<void>(16)); });
  weight.blocksize = 128;
  expect_bad_input({"blocks of 64", "blocks of 128"}, [&] { run(x.as<void>(), 128, 64, workspace.as()); });
  weight = layer.weight();
  weight.quant_type = QuantType::fp4;
  expect_bad_input({"nf4", "fp4"}, [&] { run(x.as<void>(), 128, 64, workspace.as()); });
  weight = layer.weight();
  weight.elements = 64 * 256;
  expect_bad_input({"[64, 128]", "has a weight of 16384"}, [&] { run(x.as<void>(), 128, 64, workspace.as()); });
}

}  // namespace
}  // namespace qshard::test
