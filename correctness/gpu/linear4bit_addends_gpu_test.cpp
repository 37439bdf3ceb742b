#include <limits>
#include <memory>
#include <random>

#include "correctness/expect_error.h"
#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/add.h"
#include "optimized/dropout_masks.h"
#include "optimized/linear4bit/linear4bit_plan.h"
#include "optimized/lora.h"
#include "reference/dequantize.h"
#include "reference/quantize.h"

namespace qshard::test {
namespace {

struct Case {
  std::int64_t out, in, rows, rank;
  bool forward = true;
  DType dtype = DType::bf16;
  double scale = 0.25;
  bool masked = false;
  bool add_to_out = false;
  std::int64_t padding = 0;  // elements between the rows of everything that has a stride
  int blocksize = 64;

  [[nodiscard]] std::int64_t in_width() const { return forward ? in : out; }
  [[nodiscard]] std::int64_t out_width() const { return forward ? out : in; }
  [[nodiscard]] std::string name() const {
    return fmt::format("[{}, {}] {} rows, rank {}, forward {}, {}, scale {}, masked {}, add_to_out {}, padding {}", out,
                       in, rows, rank, forward, torch_name(dtype), scale, masked, add_to_out, padding);
  }
};

/// A product with an adapter on the device, and its factors on the host. Whatever lies between rows is NaN.
class Product {
 public:
  explicit Product(const Case& setting, std::uint64_t seed)
      : setting_(setting),
        x_(random_rounded(setting.rows, setting.in_width(), setting.dtype, seed)),
        before_(random_rounded(setting.rows, setting.out_width(), setting.dtype, seed + 1)),
        factor_(random_rounded(setting.rows, setting.rank, setting.dtype, seed + 2)),
        matrix_(setting.forward ? random_rounded(setting.out, setting.rank, setting.dtype, seed + 3)
                                : random_rounded(setting.rank, setting.in, setting.dtype, seed + 3)),
        w_(setting.out, setting.in),
        in_(x_, setting.dtype, setting.in_width() + setting.padding),
        device_factor_(factor_, setting.dtype, optimized::lora_rank_stride(setting.rank) + setting.padding),
        device_matrix_(matrix_, setting.dtype, matrix_.cols()) {
    QuantizationOptions options;
    options.blocksize = setting.blocksize;
    options.double_quant = true;
    const Matrix<float> values = 0.05F * random_matrix<float>(setting.out, setting.in, seed + 4);
    const Tensor tensor =
        from_floats({values.data(), static_cast<std::size_t>(values.size())}, DType::bf16, {setting.out, setting.in});
    const Weight4bit weight = reference::quantize(tensor.view(), options, "weight");
    reference::dequantize_rounded(weight.view(), setting.dtype, {w_.data(), static_cast<std::size_t>(w_.size())});
    weight_ = std::make_unique<DeviceWeight>(weight.view());
    if (setting.masked) make_mask(seed + 5);
  }

  [[nodiscard]] optimized::Linear4bitPlan plan(std::string_view kernel = "many_rows") const {
    const optimized::Linear4bitShape shape{setting_.out, setting_.in, setting_.dtype, QuantType::nf4,
                                           setting_.blocksize};
    const auto direction =
        setting_.forward ? optimized::Linear4bitDirection::forward : optimized::Linear4bitDirection::input_gradient;
    return {plans_, shape, setting_.rows, direction, kernel};
  }

  [[nodiscard]] optimized::Linear4bitAdapter adapter() const {
    return {setting_.rank,         device_factor_.data(), device_factor_.stride(),
            device_matrix_.data(), setting_.scale,        mask_ ? mask_->as<std::uint8_t>() : nullptr};
  }

  /// The output of one run on memory that holds `before_`, or NaN where the output is not added to.
  [[nodiscard]] DeviceMatrix run(const optimized::Linear4bitAddends& addends,
                                 std::string_view kernel = "many_rows") const {
    const std::int64_t stride = setting_.out_width() + setting_.padding;
    DeviceMatrix out =
        addends.add_to_out ? before() : DeviceMatrix(setting_.rows, setting_.out_width(), setting_.dtype, stride);
    const optimized::Linear4bitPlan product = plan(kernel);
    const DeviceBuffer workspace(product.workspace_bytes());
    product.run(weight_->view(), in_.data(), in_.stride(), out.data(), out.stride(), workspace.as(), nullptr, addends);
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
    return out;
  }

  /// The product in double and its adapter's part, rounded once, or twice where they are added to the output; the
  /// bound is that of those roundings and of the sums in float, which the matrix units may truncate.
  void expect_right(const Matrix<float>& found) const {
    const Matrix<double> w = w_.cast<double>();
    const Matrix<double> x = x_.cast<double>();
    Matrix<double> expected = setting_.forward ? Matrix<double>(x * w.transpose()) : Matrix<double>(x * w);
    Matrix<double> magnitude = setting_.forward ? Matrix<double>(x.cwiseAbs() * w.transpose().cwiseAbs())
                                                : Matrix<double>(x.cwiseAbs() * w.cwiseAbs());
    const Matrix<double> factor = factor_.cast<double>();
    const Matrix<double> matrix =
        setting_.forward ? Matrix<double>(matrix_.transpose().cast<double>()) : Matrix<double>(matrix_.cast<double>());
    Matrix<double> kept = Matrix<double>::Constant(expected.rows(), expected.cols(), std::abs(setting_.scale));
    if (setting_.masked) kept.array() *= kept_.cast<double>().array();
    const double sign = setting_.scale < 0 ? -1 : 1;
    expected.array() += sign * kept.array() * (factor * matrix).array();
    magnitude.array() += kept.array() * (factor.cwiseAbs() * matrix.cwiseAbs()).array();
    const Matrix<double> product = expected;
    if (setting_.add_to_out) expected += before_.cast<double>();
    const double unit = unit_of(setting_.dtype);
    const auto inner = static_cast<double>(setting_.in_width() + setting_.rank + 2);
    const auto bound = [&](Eigen::Index row, Eigen::Index column) {
      const double sums = 2 * inner * 0x1p-23 * magnitude(row, column) + 0x1p-24;
      const double once = unit * std::abs(product(row, column)) + 1.01 * sums;
      return setting_.add_to_out ? unit * std::abs(expected(row, column)) + 1.01 * once : once;
    };
    expect_within(expected, found, bound, "out");
  }

  void make_factor_infinite(std::int64_t row) {
    factor_.row(row).setConstant(std::numeric_limits<float>::infinity());
    device_factor_ = DeviceMatrix(factor_, setting_.dtype, device_factor_.stride());
  }

  void drop_row(std::int64_t row) {
    kept_.row(row).setZero();
    upload_mask();
  }

  void clear_matrix() {
    device_matrix_ = DeviceMatrix(Matrix<float>::Zero(matrix_.rows(), matrix_.cols()), setting_.dtype, matrix_.cols());
  }

  /// What run() adds to.
  [[nodiscard]] DeviceMatrix before() const {
    return {before_, setting_.dtype, setting_.out_width() + setting_.padding};
  }
  [[nodiscard]] const DeviceMatrix& in() const { return in_; }
  [[nodiscard]] const void* factor() const { return device_factor_.data(); }
  [[nodiscard]] const void* matrix() const { return device_matrix_.data(); }
  [[nodiscard]] const std::uint8_t* mask() const { return mask_ ? mask_->as<std::uint8_t>() : nullptr; }

 private:
  void make_mask(std::uint64_t seed) {
    std::mt19937_64 generator(seed);
    kept_.resize(setting_.rows, setting_.in);
    for (Eigen::Index i = 0; i < kept_.size(); ++i) kept_.data()[i] = generator() % 3 == 0 ? 0.0F : 1.0F;
    upload_mask();
  }

  void upload_mask() {
    const std::int64_t stride = optimized::dropout_mask_stride(setting_.in);
    std::vector<std::uint8_t> bits(setting_.rows * stride);
    for (Eigen::Index row = 0; row < kept_.rows(); ++row) {
      for (Eigen::Index column = 0; column < kept_.cols(); ++column) {
        if (kept_(row, column) != 0) bits[row * stride + column / 8] |= 1 << column % 8;
      }
    }
    mask_ = std::make_unique<DeviceBuffer>(bits);
  }

  Case setting_;
  Matrix<float> x_, before_, factor_, matrix_, w_, kept_;
  DeviceMatrix in_, device_factor_, device_matrix_;
  std::unique_ptr<DeviceWeight> weight_;
  std::unique_ptr<DeviceBuffer> mask_;
  mutable optimized::MatmulPlans plans_;
};

class Linear4bitAddendsGpu : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped() && !optimized::current_linear4bit_device().has_warpgroups)
      GTEST_SKIP() << "not run: the kernel that adds is for Hopper GPUs";
  }
};

void check(const Case& setting, std::uint64_t seed) {
  SCOPED_TRACE(setting.name());
  const Product product(setting, seed);
  const optimized::Linear4bitAddends addends{product.adapter(), setting.add_to_out};
  const DeviceMatrix out = product.run(addends);
  product.expect_right(out.values());
  EXPECT_EQ(differing(out.bytes(), product.run(addends).bytes()), 0U) << "a second run gave other bits";
}

// Ranks of part of a step, of whole steps and of more than one; tiles that end early; one tile, and more tiles than
// there are clusters, so that the stages go on from tile to tile; strides with NaN between the rows.
TEST_F(Linear4bitAddendsGpu, ForwardOfEveryRank) {
  std::uint64_t seed = 1000;
  for (const std::int64_t rank : {8, 16, 64, 72, 128, 200}) {
    check({.out = 8, .in = 64, .rows = 65, .rank = rank}, seed += 10);
    check({.out = 1000, .in = 320, .rows = 301, .rank = rank, .scale = 1, .padding = 8}, seed += 10);
    check({.out = 264, .in = 1088, .rows = 257, .rank = rank, .dtype = DType::f16, .scale = -1.7, .padding = 16},
          seed += 10);
    if (HasFailure()) return;
  }
}

TEST_F(Linear4bitAddendsGpu, GradientOfEveryRank) {
  std::uint64_t seed = 2000;
  for (const std::int64_t rank : {1, 5, 8, 16, 64, 72, 128, 200}) {
    for (const bool masked : {true, false}) {
      check({.out = 8, .in = 64, .rows = 65, .rank = rank, .forward = false, .masked = masked}, seed += 10);
      check({.out = 320,
             .in = 1088,
             .rows = 301,
             .rank = rank,
             .forward = false,
             .scale = 1 / 0.9,
             .masked = masked,
             .padding = 8},
            seed += 10);
      check({.out = 1000,
             .in = 192,
             .rows = 257,
             .rank = rank,
             .forward = false,
             .dtype = DType::f16,
             .masked = masked,
             .add_to_out = true,
             .padding = 16},
            seed += 10);
      if (HasFailure()) return;
    }
  }
}

// So small that compute-sanitizer's tools come to an end.
TEST_F(Linear4bitAddendsGpu, OneTile) {
  check({.out = 72, .in = 128, .rows = 65, .rank = 8}, 2500);
  check({.out = 72, .in = 128, .rows = 65, .rank = 5, .forward = false, .masked = true, .add_to_out = true}, 2510);
  check({.out = 8, .in = 3072, .rows = 65, .rank = 8}, 2520);  // shared by three clusters
}

TEST_F(Linear4bitAddendsGpu, MoreTilesThanClusters) {
  check({.out = 20000, .in = 128, .rows = 520, .rank = 64}, 3000);
  check({.out = 20000, .in = 64, .rows = 300, .rank = 72, .dtype = DType::f16}, 3010);
  check({.out = 64, .in = 20480, .rows = 520, .rank = 64, .forward = false, .masked = true}, 3020);
  check({.out = 192, .in = 20480, .rows = 300, .rank = 72, .forward = false, .masked = true, .add_to_out = true}, 3030);
}

// Tiles that clusters share, alone and behind whole ones; the adapter's part must be in the sum once.
TEST_F(Linear4bitAddendsGpu, SharedTiles) {
  check({.out = 520, .in = 4096, .rows = 130, .rank = 72}, 3100);
  check({.out = 17000, .in = 3072, .rows = 70, .rank = 64, .dtype = DType::f16, .padding = 8}, 3110);
  check({.out = 4096, .in = 576, .rows = 130, .rank = 72, .forward = false, .masked = true, .add_to_out = true}, 3120);
  check({.out = 3072, .in = 17024, .rows = 70, .rank = 5, .forward = false, .masked = true}, 3130);
}

// An adapter whose B is 0 changes no bit: zeros are added to.
TEST_F(Linear4bitAddendsGpu, AnAdapterOfZerosChangesNothing) {
  for (const bool forward : {true, false}) {
    Product product({.out = 1288, .in = 1024, .rows = 700, .rank = 72, .forward = forward, .masked = !forward}, 4000);
    product.clear_matrix();
    const Matrix<float> plain = product.run({}).values();
    const Matrix<float> adapted = product.run({product.adapter(), false}).values();
    EXPECT_TRUE((plain.array() == adapted.array()).all()) << "forward " << forward;
  }
}

// Adding to the output has the bits of a product on its own and add().
TEST_F(Linear4bitAddendsGpu, AddsToTheOutputAsAddDoes) {
  std::uint64_t seed = 5000;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const bool forward : {true, false}) {
      for (const std::int64_t rank : {0, 64}) {
        const Case setting{.out = 776,
                           .in = 640,
                           .rows = 523,
                           .rank = std::max<std::int64_t>(rank, 8),
                           .forward = forward,
                           .dtype = dtype,
                           .masked = !forward};
        SCOPED_TRACE(setting.name());
        const Product product(setting, seed += 10);
        const optimized::Linear4bitAdapter adapter = rank > 0 ? product.adapter() : optimized::Linear4bitAdapter{};
        const DeviceMatrix part = product.run({adapter, false});
        const DeviceMatrix found = product.run({adapter, true});
        const DeviceMatrix expected = product.before();
        optimized::add(setting.rows * setting.out_width(), dtype, part.data(), expected.data(), nullptr);
        expect_bits(expected.values(), found.values(), "out");
      }
    }
  }
}

// What is dropped adds nothing, not even NaN.
TEST_F(Linear4bitAddendsGpu, DroppedInfinitiesAddNothing) {
  Product product({.out = 320, .in = 576, .rows = 300, .rank = 16, .forward = false, .masked = true}, 6000);
  product.make_factor_infinite(271);
  product.drop_row(271);
  const Matrix<float> plain = product.run({}).values();
  const Matrix<float> adapted = product.run({product.adapter(), false}).values();
  EXPECT_TRUE((plain.row(271).array() == adapted.row(271).array()).all());
  EXPECT_TRUE(adapted.array().isFinite().all());
}

// The separate update, which other kernels have, rounds three times and once more than the product.
TEST_F(Linear4bitAddendsGpu, IsNearTheSeparateUpdate) {
  const Case setting{.out = 1024, .in = 512, .rows = 600, .rank = 64};
  const Product product(setting, 7000);
  const Matrix<float> found = product.run({product.adapter(), false}).values();
  for (const std::string_view kernel : {"many_rows", "dequantize_first"}) {
    const DeviceMatrix y = product.run({}, kernel);
    optimized::lora_up_add({setting.rows, setting.out, setting.rank, setting.dtype, setting.scale}, product.factor(),
                           product.matrix(), y.data(), y.stride(), nullptr);
    const Matrix<float> separate = y.values();
    const float largest = separate.cwiseAbs().maxCoeff();
    EXPECT_LT((separate - found).cwiseAbs().maxCoeff(), 4 * 0x1p-8F * largest) << kernel;
  }
}

TEST_F(Linear4bitAddendsGpu, RefusesWhatTheKernelDoesNotAdd) {
  const Product odd({.out = 256, .in = 256, .rows = 256, .rank = 12}, 8000);
  const Product even({.out = 256, .in = 256, .rows = 256, .rank = 16}, 8010);
  const Product gradient({.out = 256, .in = 256, .rows = 256, .rank = 12, .forward = false, .masked = true}, 8020);
  const auto adds = [](const Product& product, const optimized::Linear4bitAddends& addends, std::string_view kernel,
                       std::int64_t out_stride = 256) {
    return product.plan(kernel).adds(addends, product.in().data(), product.in().stride(), nullptr, out_stride);
  };
  EXPECT_TRUE(adds(even, {even.adapter(), false}, "many_rows"));
  EXPECT_TRUE(adds(gradient, {gradient.adapter(), true}, "many_rows"));
  EXPECT_TRUE(adds(even, {}, "dequantize_first"));
  EXPECT_FALSE(adds(odd, {odd.adapter(), false}, "many_rows")) << "rows of B of 24 bytes";
  EXPECT_FALSE(adds(even, {even.adapter(), false}, "dequantize_first"));
  EXPECT_FALSE(adds(even, {{}, true}, "dequantize_first"));
  EXPECT_FALSE(adds(even, {even.adapter(), false}, "many_rows", 257)) << "another kernel takes odd strides";
  expect_bad_input({"many_rows", "adapter"}, [&] { static_cast<void>(odd.run({odd.adapter(), false})); });
  expect_bad_input({"dequantize_first"}, [&] { static_cast<void>(even.run({{}, true}, "dequantize_first")); });
  optimized::Linear4bitAdapter adapter = even.adapter();
  adapter.factor = nullptr;
  expect_bad_input({"factor", "null"}, [&] { static_cast<void>(even.run({adapter, false})); });
  adapter = even.adapter();
  adapter.factor_stride = 8;
  expect_bad_input({"stride", "factor"}, [&] { static_cast<void>(even.run({adapter, false})); });
  adapter = even.adapter();
  adapter.mask = gradient.mask();
  expect_bad_input({"mask", "forward"}, [&] { static_cast<void>(even.run({adapter, false})); });
  adapter = even.adapter();
  adapter.rank = -1;
  expect_bad_input({"rank"}, [&] { static_cast<void>(even.run({adapter, false})); });
}

}  // namespace
}  // namespace qshard::test
