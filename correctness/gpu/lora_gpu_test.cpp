#include "correctness/expect_error.h"
#include "correctness/gpu/lora_gpu_testing.h"
#include "optimized/lora/rank_gradient.h"
#include "optimized/lora/rank_product.h"
#include "reference/matrix_product.h"

namespace qshard::test {
namespace {

class LoraGpu : public GpuTest {};

/// From -3 to 3. With scales that are powers of two, or 1.5, every sum here is exact in float in any order, and so only
/// the roundings that the contract names remain: results equal the reference's to the bit.
float small_integer(std::mt19937_64& generator) {
  return static_cast<float>(static_cast<int>(generator() % 7) - 3);
}

float normal(std::mt19937_64& generator) {
  return std::normal_distribution<float>()(generator);
}

struct Expected {
  std::vector<LoraValues> projections;
  Matrix<float> dx;
};

/// By the reference. dx adds what the reference makes of each projection, and rounds once for those whose weights fit
/// in 96 KiB together.
Expected expected_of(const LoraProblem& problem) {
  const DType dtype = problem.setting.dtype;
  Expected expected{problem.projections, problem.dx};
  std::int64_t shared_bytes = 0;
  for (std::size_t i = 0; i < problem.projections.size(); ++i) {
    LoraValues& values = expected.projections[i];
    const Matrix<float> dropped = problem.dropped_input(i);
    const reference::Lora<float> lora{values.a, values.b};
    values.h = reference::times_transposed(dropped, values.a, dtype);
    Matrix<float> d = static_cast<float>(problem.setting.scaling) * values.dy;
    reference::round_to(dtype, d);
    values.g = reference::times(d, values.b, dtype);
    reference::lora_forward(lora, problem.setting.scaling, dtype, dropped, values.y);
    reference::Lora<float> gradient{values.da, values.db};
    const Matrix<float> branch =
        reference::lora_backward(lora, problem.setting.scaling, dtype, dropped, values.dy, gradient);
    values.da = gradient.a;
    values.db = gradient.b;
    const std::int64_t weight_bytes = (problem.setting.ranks[i] + 31) / 32 * 32 * 128 * 2;
    if (dtype != DType::f32 && shared_bytes + weight_bytes > 96 << 10) {
      reference::round_to(dtype, expected.dx);
      shared_bytes = 0;
    }
    shared_bytes += weight_bytes;
    expected.dx += problem.dropped(i, branch);
  }
  reference::round_to(dtype, expected.dx);
  return expected;
}

void expect_exact(const LoraCase& setting, std::uint64_t seed) {
  SCOPED_TRACE(setting.name());
  const LoraProblem problem(setting, seed, small_integer);
  LoraOnDevice device(problem);
  device.run();
  const Expected expected = expected_of(problem);
  for (std::size_t i = 0; i < problem.projections.size(); ++i) {
    SCOPED_TRACE(fmt::format("projection {}", i));
    const LoraValues found = device.values(i);
    expect_bits(expected.projections[i].h, found.h, "h");
    expect_bits(expected.projections[i].g, found.g, "g");
    expect_bits(expected.projections[i].y, found.y, "y");
    expect_bits(expected.projections[i].db, found.db, "dB");
    expect_bits(expected.projections[i].da, found.da, "dA");
    expect_bits(problem.projections[i].a, found.a, "A");
    expect_bits(problem.projections[i].dy, found.dy, "dy");
  }
  expect_bits(expected.dx, device.dx(), "dx");
}

TEST_F(LoraGpu, EqualsTheReferenceWhereSumsAreExact) {
  std::uint64_t seed = 100;
  for (const DType dtype : kFloatingDTypes) {
    for (const LoraCase& setting : std::vector<LoraCase>{
             {dtype, {100, 1, 49}, 256, 136, {64, 64, 64}, 0.5, 1.5},
             {dtype, {130}, 192, 128, {8, 8}, 0, 0.25},
             {dtype, {70, 63}, 320, 264, {16}, 0.5, 2, 8},
             {dtype, {40}, 64, 40, {32, 8, 24}, 0.5, 1.5, 16},
             {dtype, {1}, 128, 128, {64}, 0.5, 1},
         }) {
      expect_exact(setting, ++seed);
    }
  }
}

TEST_F(LoraGpu, OddSizesAndStridesAndRanks) {
  std::uint64_t seed = 200;
  for (const DType dtype : kFloatingDTypes) {
    for (const LoraCase& setting : std::vector<LoraCase>{
             {dtype, {30, 3, 34}, 201, 77, {1}, 0.5, 1.5, 1},
             {dtype, {65}, 136, 72, {100, 3, 64}, 0.5, 1.5, 0, 1},
             {dtype, {33}, 344, 96, {96, 128}, 0, 1.5},
             {dtype, {20}, 72, 40, {256, 256, 256}, 0.5, 0.5},
             {dtype, {5, 2}, 9, 3, {7, 9}, 0, 1, 3, 5},
         }) {
      expect_exact(setting, ++seed);
    }
  }
}

/// A layer's sizes: sums in slices, several tiles everywhere.
TEST_F(LoraGpu, SlicedSums) {
  expect_exact({DType::bf16, {700, 324}, 2048, 1024, {64, 64, 64}, 0.5, 1.5}, 300);
  expect_exact({DType::bf16, {600}, 4096, 2048, {16}, 0.5, 0.5}, 301);
  expect_exact({DType::f16, {1000}, 1024, 2056, {64}, 0, 0.25}, 302);
}

/// h is dropout(x) itself where A selects features: mask, scale and its rounding, to the bit.
/// h and dA of projections that share an input, by a kernel.
std::vector<std::uint8_t> rank_results(const LoraProblem& problem, optimized::RankKernel kernel) {
  const LoraCase& of = problem.setting;
  const DeviceMatrix x(problem.x, of.dtype, of.in);
  const DeviceRows rows(problem.batch);
  const optimized::ScaledInput input{x.data(), of.in, problem.batch.tokens(),
                                     of.in,    2,     optimized::dropout_mask_stride(of.in)};
  std::vector<DeviceMatrix> weights, gradients, hs;
  std::vector<DeviceBuffer> masks;
  std::vector<optimized::RankProduct> products;
  std::vector<optimized::RankGradient> sums;
  std::int64_t columns = 0;
  for (std::size_t i = 0; i < of.ranks.size(); ++i) {
    const std::int64_t rank = of.ranks[i];
    const std::int64_t stride = optimized::lora_rank_stride(rank);
    columns += stride;
    weights.emplace_back(problem.projections[i].a, of.dtype, of.in);
    gradients.emplace_back(problem.projections[i].da, DType::f32, of.in);
    hs.emplace_back(problem.batch.tokens(), stride, of.dtype, stride);
    masks.emplace_back(problem.batch.tokens() * optimized::dropout_mask_stride(of.in));
    const optimized::DropoutMaskBits bits{problem.place(i).projection, of.in, masks.back().as<std::uint8_t>()};
    optimized::dropout_masks(problem.mask(), rows.view(), {&bits, 1}, nullptr);
    products.push_back({weights[i].data(), rank, masks[i].as<std::uint8_t>(), hs[i].data()});
    sums.push_back({hs[i].data(), rank, masks[i].as<std::uint8_t>(), static_cast<float*>(gradients[i].data())});
  }
  const DeviceBuffer partials(optimized::lora_input_workspace_bytes(problem.input_shape(), of.ranks));
  auto* const floats = partials.as<float>();
  optimized::rank_product(of.dtype, true, true, input, products, floats, nullptr, kernel);
  optimized::rank_gradient(of.dtype, true, true, input, sums, floats, nullptr, kernel);
  std::vector<std::uint8_t> all;
  for (std::size_t i = 0; i < of.ranks.size(); ++i) {
    for (const DeviceMatrix* matrix : {&hs[i], &gradients[i]}) {
      const std::vector<std::uint8_t> bytes = matrix->bytes();
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
  }
  return all;
}

// On a Hopper GPU wgmma takes ranks up to 64; the others' kernel gives the same sums where they are exact.
TEST_F(LoraGpu, TheKernelOfEveryGpuGivesTheSameSums) {
  std::uint64_t seed = 350;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const std::vector<std::int64_t>& ranks :
         std::vector<std::vector<std::int64_t>>{{8}, {16, 13}, {32, 24, 8}, {64}, {64, 40, 64}}) {
      const LoraProblem problem({dtype, {90, 1, 45}, 200, 8, ranks, 0.5, 1}, ++seed, small_integer);
      EXPECT_EQ(rank_results(problem, optimized::RankKernel::fastest),
                rank_results(problem, optimized::RankKernel::every_gpu))
          << problem.setting.name();
    }
  }
}

TEST_F(LoraGpu, MasksAreTheReferences) {
  for (const DType dtype : kFloatingDTypes) {
    for (const std::int64_t in : {std::int64_t{192}, std::int64_t{130}}) {
      LoraProblem problem({dtype, {90, 1, 45}, in, 8, {64, 64}, 0.1, 1}, 400 + in, normal);
      for (LoraValues& values : problem.projections) values.a.setZero();
      for (std::int64_t column = 0; column < 64; ++column) {
        problem.projections[0].a(column, column) = 1;
        problem.projections[1].a(column, in - 64 + column) = 1;
      }
      LoraOnDevice device(problem);
      device.make_masks();
      device.down();
      expect_bits(problem.dropped_input(0).leftCols(64), device.values(0).h, "the first features");
      expect_bits(problem.dropped_input(1).rightCols(64), device.values(1).h, "the last features");
    }
  }
}

/// For operands of any size: |float sum - exact sum| <= n 2^-23 times the sum of the magnitudes, whatever the order and
/// also where the adder truncates, for n terms and as many slices again; then the roundings to the dtype, one by one.
struct Bounded {
  Matrix<double> value, error;

  [[nodiscard]] Bounded times(const Matrix<double>& other) const {
    const double unit = 0x1p-22 * static_cast<double>(value.cols());
    return {value * other, error * other.cwiseAbs() + unit * ((value.cwiseAbs() + error) * other.cwiseAbs())};
  }
  [[nodiscard]] Bounded scaled(double scale) const {
    return {value * scale, error * std::abs(scale) + 0x1p-23 * std::abs(scale) * (value.cwiseAbs() + error)};
  }
  [[nodiscard]] Bounded plus(const Bounded& other) const {
    return {value + other.value,
            error + other.error + 0x1p-23 * (value.cwiseAbs() + error + other.value.cwiseAbs() + other.error)};
  }
  [[nodiscard]] Bounded rounded(DType dtype) const {
    const Matrix<double> magnitude = value.cwiseAbs() + error;
    return {value, (error + unit_of(dtype) * magnitude).array() + least_of(dtype)};
  }
  void expect(const Matrix<float>& found, const char* what) const {
    expect_within(
        value, found, [&](Eigen::Index row, Eigen::Index col) { return error(row, col); }, what);
  }
};

Bounded exact(const Matrix<float>& values) {
  return {values.cast<double>(), Matrix<double>::Zero(values.rows(), values.cols())};
}

/// 1 where the reference keeps an element of the projection's input, 0 where it drops it.
Matrix<double> kept_of(const LoraProblem& problem, std::size_t projection) {
  const Matrix<float> ones = Matrix<float>::Ones(problem.x.rows(), problem.x.cols());
  return (problem.dropped(projection, ones).array() != 0).cast<double>();
}

/// Every result from what the device itself made before it, so that each bound is of one operation.
void expect_bounded(const LoraCase& setting, std::uint64_t seed) {
  SCOPED_TRACE(setting.name());
  const DType dtype = setting.dtype;
  const LoraProblem problem(setting, seed, normal);
  LoraOnDevice device(problem);
  device.run();
  Bounded dx = exact(Matrix<float>::Zero(problem.dx.rows(), problem.dx.cols()));
  for (std::size_t i = 0; i < problem.projections.size(); ++i) {
    SCOPED_TRACE(fmt::format("projection {}", i));
    const LoraValues& given = problem.projections[i];
    const LoraValues found = device.values(i);
    const Matrix<double> kept = kept_of(problem, i);
    const double keep_scale = static_cast<float>(1 / (1 - setting.dropout));
    const Bounded dropped = exact(problem.x.cwiseProduct(kept.cast<float>())).scaled(keep_scale);
    dropped.times(given.a.cast<double>().transpose()).rounded(dtype).expect(found.h, "h");
    exact(found.h)
        .times(given.b.cast<double>().transpose())
        .rounded(dtype)
        .scaled(static_cast<float>(setting.scaling))
        .rounded(dtype)
        .plus(exact(given.y))
        .rounded(dtype)
        .expect(found.y, "y");
    const double scaling = static_cast<float>(setting.scaling);
    exact(given.dy).scaled(scaling).times(given.b.cast<double>()).rounded(dtype).expect(found.g, "g");
    exact(given.dy.transpose())
        .scaled(scaling)
        .times(found.h.cast<double>())
        .plus(exact(given.db))
        .expect(found.db, "dB");
    exact(found.g.transpose())
        .scaled(keep_scale)
        .times(problem.x.cast<double>().cwiseProduct(kept))
        .plus(exact(given.da))
        .expect(found.da, "dA");
    Bounded branch = exact(found.g).times(given.a.cast<double>()).rounded(dtype);
    if (setting.dropout != 0) {
      branch = branch.scaled(keep_scale).rounded(dtype);
      branch = {branch.value.cwiseProduct(kept), branch.error.cwiseProduct(kept)};
    }
    dx = dx.plus(branch);
  }
  dx.plus(exact(problem.dx)).rounded(dtype).expect(device.dx(), "dx");
}

TEST_F(LoraGpu, RandomNumbersStayWithinTheBounds) {
  std::uint64_t seed = 500;
  for (const DType dtype : kFloatingDTypes) {
    expect_bounded({dtype, {100, 29}, 200, 136, {64, 64, 64}, 0.1, 0.7}, ++seed);
    expect_bounded({dtype, {33, 7}, 96, 50, {12}, 0.1, 1.3, 4}, ++seed);
  }
  expect_bounded({DType::bf16, {1000}, 1024, 1024, {64}, 0.1, 0.7}, ++seed);
}

TEST_F(LoraGpu, TheSameBitsInEveryRun) {
  const LoraProblem problem({DType::bf16, {500, 200}, 1024, 768, {64, 16, 64}, 0.1, 0.7}, 600, normal);
  LoraOnDevice first(problem);
  first.run();
  for (int i = 0; i < 3; ++i) {
    LoraOnDevice again(problem);
    again.run();
    EXPECT_EQ(differing(first.result_bytes(), again.result_bytes()), 0U);
  }
}

/// What is dropped counts as 0 even where x has no number.
TEST_F(LoraGpu, DroppedInfinitiesAndNansAreZero) {
  LoraProblem problem({DType::bf16, {64}, 128, 8, {8}, 0.5, 1}, 700, small_integer);
  const Matrix<float> dropped = problem.dropped_input(0);
  for (Eigen::Index i = 0; i < problem.x.size(); ++i) {
    const bool kept = problem.dropped(0, Matrix<float>(Matrix<float>::Ones(64, 128))).data()[i] != 0;
    if (!kept) problem.x.data()[i] = i % 2 == 0 ? INFINITY : NAN;
  }
  LoraOnDevice device(problem);
  device.run();
  EXPECT_TRUE(device.values(0).h.allFinite());
  EXPECT_TRUE(device.values(0).da.allFinite());
  expect_bits(reference::times_transposed(dropped, problem.projections[0].a, DType::bf16), device.values(0).h, "h");
}

TEST_F(LoraGpu, RefusesBadInput) {
  const LoraProblem problem({DType::bf16, {4}, 16, 16, {8}, 0.1, 1}, 800, normal);
  const DeviceMatrix x(problem.x, DType::bf16, 16);
  const DeviceBuffer memory(1 << 20);
  const auto down = [&](const optimized::LoraInputShape& shape, std::int64_t stride, const optimized::LoraDown& task,
                        std::size_t workspace_bytes) {
    optimized::lora_down(shape, x.data(), stride, {&task, 1}, memory.as<void>(), workspace_bytes, nullptr);
  };
  const optimized::LoraInputShape shape = problem.input_shape();
  const optimized::LoraDown task{x.data(), 8, memory.as<std::uint8_t>(), memory.as<void>()};
  const auto changed = [](auto value, const auto& change) {
    change(value);
    return value;
  };
  const std::size_t bytes = memory.bytes();
  expect_bad_input({"lora_dropout"}, [&] { down(changed(shape, [](auto& s) { s.dropout = 1; }), 16, task, bytes); });
  expect_bad_input({"int64"}, [&] { down(changed(shape, [](auto& s) { s.dtype = DType::i64; }), 16, task, bytes); });
  expect_bad_input({"input features"},
                   [&] { down(changed(shape, [](auto& s) { s.in_features = 0; }), 16, task, bytes); });
  expect_bad_input({"stride"}, [&] { down(shape, 15, task, bytes); });
  expect_bad_input({"workspace"}, [&] { down(shape, 16, task, 16); });
  expect_bad_input({"rank"}, [&] { down(shape, 16, changed(task, [](auto& t) { t.rank = 257; }), bytes); });
  expect_bad_input({"rank"}, [&] { down(shape, 16, changed(task, [](auto& t) { t.rank = 0; }), bytes); });
  expect_bad_input({"mask"}, [&] { down(shape, 16, changed(task, [](auto& t) { t.mask = nullptr; }), bytes); });
  expect_bad_input({"mask"}, [&] { down(changed(shape, [](auto& s) { s.dropout = 0; }), 16, task, bytes); });
  expect_bad_input({"adapter's A"}, [&] { down(shape, 16, changed(task, [](auto& t) { t.a = nullptr; }), bytes); });
  expect_bad_input({"adapters"},
                   [&] { optimized::lora_down(shape, x.data(), 16, {}, memory.as<void>(), bytes, nullptr); });
  expect_bad_input({"adapter's B"}, [&] {
    optimized::lora_up_add(problem.output_shape(0), memory.as<void>(), nullptr, memory.as<void>(), 16, nullptr);
  });
}

}  // namespace
}  // namespace qshard::test
