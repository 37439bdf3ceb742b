#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>

#include <fmt/format.h>

#include "core/tensor/float16.h"
#include "correctness/expect_error.h"
#include "correctness/gpu/attention_literal.h"
#include "correctness/gpu/gpu_testing.h"
#include "optimized/attention/attention_table.h"
#include "reference/attention.h"

namespace qshard::test {
namespace {

using optimized::AttentionKernel;
using optimized::AttentionShape;
using optimized::AttentionSizes;
using optimized::AttentionTensors;
using reference::Matrix;

class AttentionGpu : public GpuTest {};

struct Case {
  std::vector<std::int32_t> lengths;
  std::int64_t heads = 4;
  std::int64_t kv_heads = 2;
  std::int64_t head_dim = 64;
  std::int64_t window = 0;
  DType dtype = DType::bf16;
  std::int64_t gap = 8;   // elements between one token's heads and the next token's
  bool negative = false;  // all scaled scores near -100

  [[nodiscard]] std::string name() const {
    return fmt::format("{} rows of {} and so on, {}/{} heads of {}, window {}, {}, gap {}{}", lengths.size(),
                       lengths.front(), heads, kv_heads, head_dim, window, torch_name(dtype), gap,
                       negative ? ", scores near -100" : "");
  }
};

std::vector<std::byte> to_bytes(const Matrix<double>& values, std::int64_t stride, DType dtype, std::byte gap) {
  const auto size = static_cast<std::int64_t>(size_of(dtype));
  std::vector<std::byte> bytes(values.rows() * stride * size, gap);
  for (Eigen::Index row = 0; row < values.rows(); ++row) {
    for (Eigen::Index column = 0; column < values.cols(); ++column) {
      const auto value = static_cast<float>(values(row, column));
      std::byte* to = bytes.data() + (row * stride + column) * size;
      if (dtype == DType::f32) std::memcpy(to, &value, 4);
      const std::uint16_t half = dtype == DType::bf16 ? std::bit_cast<std::uint16_t>(from_float<bfloat16>(value))
                                                      : std::bit_cast<std::uint16_t>(from_float<float16>(value));
      if (dtype != DType::f32) std::memcpy(to, &half, 2);
    }
  }
  return bytes;
}

/// Fails where what lies between rows is no longer 0xFF.
Matrix<double> from_bytes(const std::vector<std::byte>& bytes, std::int64_t rows, std::int64_t columns,
                          std::int64_t stride, DType dtype, const char* what) {
  const auto size = static_cast<std::int64_t>(size_of(dtype));
  Matrix<double> values(rows, columns);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::byte* from = bytes.data() + row * stride * size;
    for (std::int64_t column = 0; column < columns; ++column) {
      float value = 0;
      std::uint16_t half = 0;
      std::memcpy(&half, from + column * size, 2);
      if (dtype == DType::f32) {
        std::memcpy(&value, from + column * size, 4);
      } else {
        value = dtype == DType::bf16 ? to_float(std::bit_cast<bfloat16>(half)) : to_float(std::bit_cast<float16>(half));
      }
      values(row, column) = value;
    }
    for (std::int64_t i = columns * size; i < stride * size; ++i) {
      if (from[i] != std::byte{0xFF}) {
        ADD_FAILURE() << what << ": written beyond row " << row;
        return values;
      }
    }
  }
  return values;
}

/// Inputs and outputs of one case on the GPU; the outputs and the workspace are NaN before every run.
class Problem {
 public:
  Problem(const Case& c, std::uint64_t seed) : case_(c) {
    for (const std::int32_t length : c.lengths) offsets.push_back(offsets.back() + length);
    const std::int64_t q_width = c.heads * c.head_dim;
    const std::int64_t kv_width = c.kv_heads * c.head_dim;
    shape = {c.heads,         c.kv_heads,           c.head_dim,          c.window,
             q_width + c.gap, kv_width + 2 * c.gap, q_width + 3 * c.gap, c.dtype};
    sizes = {offsets.back(), static_cast<std::int64_t>(c.lengths.size()),
             *std::max_element(c.lengths.begin(), c.lengths.end())};
    std::mt19937_64 generator(seed);
    q = random(q_width, generator);
    k = random(kv_width, generator);
    v = random(kv_width, generator);
    dout = random(q_width, generator);
    if (c.negative) {
      const double size = std::sqrt(100 / std::sqrt(static_cast<double>(c.head_dim)));
      q = round((size * (1 + 0.01 * q.array())).matrix());
      k = round((-size * (1 + 0.01 * k.array())).matrix());
    }
    upload();
  }

  void upload() {
    const auto copy = [](std::unique_ptr<DeviceBuffer>& to, const auto& values) {
      to = std::make_unique<DeviceBuffer>(values);
    };
    copy(device_offsets_, offsets);
    copy(q_, to_bytes(q, shape.q_stride, shape.dtype, std::byte{0xFF}));
    copy(k_, to_bytes(k, shape.kv_stride, shape.dtype, std::byte{0xFF}));
    copy(v_, to_bytes(v, shape.kv_stride, shape.dtype, std::byte{0xFF}));
    copy(dout_, to_bytes(dout, shape.o_stride, shape.dtype, std::byte{0xFF}));
    o_ = std::make_unique<DeviceBuffer>(dout_->bytes());
    lse_ = std::make_unique<DeviceBuffer>(sizes.tokens * shape.heads * sizeof(float));
    dq_ = std::make_unique<DeviceBuffer>(q_->bytes());
    dk_ = std::make_unique<DeviceBuffer>(k_->bytes());
    dv_ = std::make_unique<DeviceBuffer>(v_->bytes());
  }

  [[nodiscard]] optimized::TokenRows rows() const {
    optimized::TokenRows rows;
    rows.offsets = device_offsets_->as<std::int32_t>();
    rows.tokens = static_cast<std::int32_t>(sizes.tokens);
    rows.rows = static_cast<std::int32_t>(sizes.rows);
    rows.longest = static_cast<std::int32_t>(sizes.longest);
    return rows;
  }

  [[nodiscard]] AttentionTensors tensors() const {
    return {q_->as<void>(),    k_->as<void>(),  v_->as<void>(),  o_->as<void>(), lse_->as<float>(),
            dout_->as<void>(), dq_->as<void>(), dk_->as<void>(), dv_->as<void>()};
  }

  /// Why the kernel does not compute this; empty: it does.
  [[nodiscard]] std::string refusal(const AttentionKernel& kernel) const {
    std::string reason = kernel.refuses_shape(shape, sizes);
    return reason.empty() ? kernel.refuses_call(shape, sizes, tensors()) : reason;
  }

  void poison() const {
    for (const auto* buffer : {&o_, &lse_, &dq_, &dk_, &dv_}) {
      QSHARD_CUDA_CHECK(cudaMemset((*buffer)->as<void>(), 0xFF, (*buffer)->bytes()));
    }
  }

  /// Both passes in a workspace of exactly the size that the kernel asks for, which it may not leave.
  void run(const AttentionKernel& kernel) {
    constexpr std::size_t kGuard = 1024;
    const std::size_t bytes = kernel.workspace_bytes(shape, sizes);
    const DeviceBuffer workspace(bytes + kGuard);
    QSHARD_CUDA_CHECK(cudaMemset(workspace.as<void>(), 0xFF, workspace.bytes()));
    poison();
    kernel.forward(shape, rows(), tensors(), workspace.as<void>(), nullptr);
    kernel.backward(shape, rows(), tensors(), workspace.as<void>(), nullptr);
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
    std::array<std::uint8_t, kGuard> guard{};
    QSHARD_CUDA_CHECK(cudaMemcpy(guard.data(), workspace.as<std::uint8_t>(bytes), kGuard, cudaMemcpyDeviceToHost));
    EXPECT_TRUE(std::all_of(guard.begin(), guard.end(), [](std::uint8_t byte) { return byte == 0xFF; }))
        << "written beyond the workspace";
  }

  /// All outputs one after the other, as they lie in memory.
  [[nodiscard]] std::vector<std::vector<std::byte>> outputs() const {
    return {o_->download<std::byte>(), lse_->download<std::byte>(), dq_->download<std::byte>(),
            dk_->download<std::byte>(), dv_->download<std::byte>()};
  }

  void check(const AttentionKernel& kernel) const {
    AttentionRounding rounding;
    rounding.result = unit_roundoff();
    rounding.weights = kernel.name == "plain" ? 0 : unit_roundoff();
    rounding.tiny = shape.dtype == DType::f16 ? 0x1p-25 : 0;
    const LiteralAttention expected = literal_attention(shape, offsets, rounding, q, k, v, dout);
    const auto bytes = outputs();
    expect_within(expected.o, from_bytes(bytes[0], sizes.tokens, q.cols(), shape.o_stride, shape.dtype, "o"), "o");
    const Matrix<double> lse =
        from_bytes(bytes[1], shape.heads, sizes.tokens, sizes.tokens, DType::f32, "lse").transpose();
    expect_within(expected.lse, lse, "lse");
    expect_within(expected.dq, from_bytes(bytes[2], sizes.tokens, q.cols(), shape.q_stride, shape.dtype, "dq"), "dq");
    expect_within(expected.dk, from_bytes(bytes[3], sizes.tokens, k.cols(), shape.kv_stride, shape.dtype, "dk"), "dk");
    expect_within(expected.dv, from_bytes(bytes[4], sizes.tokens, k.cols(), shape.kv_stride, shape.dtype, "dv"), "dv");
    if (shape.window == 0) expect_reference(expected);
  }

  AttentionShape shape;
  AttentionSizes sizes;
  std::vector<std::int32_t> offsets{0};
  Matrix<double> q, k, v, dout;

 private:
  [[nodiscard]] double unit_roundoff() const {
    return shape.dtype == DType::bf16 ? 0x1p-8 : shape.dtype == DType::f16 ? 0x1p-11 : 0x1p-24;
  }

  [[nodiscard]] Matrix<double> round(Matrix<double> values) const {
    if (shape.dtype == DType::f32) return values.cast<float>().cast<double>();
    reference::round_to(shape.dtype, values);
    return values;
  }

  Matrix<double> random(std::int64_t columns, std::mt19937_64& generator) const {
    std::normal_distribution<double> normal;
    Matrix<double> values(offsets.back(), columns);
    for (Eigen::Index i = 0; i < values.size(); ++i) values.data()[i] = normal(generator);
    return round(values);
  }

  static void expect_within(const BoundedMatrix& expected, const Matrix<double>& found, const char* what) {
    double worst = 0;
    for (Eigen::Index row = 0; row < found.rows(); ++row) {
      for (Eigen::Index column = 0; column < found.cols(); ++column) {
        const double ratio = std::abs(found(row, column) - expected.value(row, column)) / expected.bound(row, column);
        if (!(ratio <= 1) && found(row, column) != expected.value(row, column)) {
          ADD_FAILURE() << what << "[" << row << ", " << column << "] is " << found(row, column) << ", expected "
                        << expected.value(row, column) << " +- " << expected.bound(row, column);
          return;
        }
        worst = std::max(worst, ratio);
      }
    }
    testing::Test::RecordProperty(fmt::format("worst_over_bound_{}", what), fmt::format("{:.3f}", worst));
  }

  /// The plain loops and the reference are the same formulas in double: sums of at most a few thousand terms.
  void expect_reference(const LiteralAttention& expected) const {
    TokenBatch batch;
    batch.input_ids.resize(sizes.tokens);
    batch.offsets.assign(offsets.begin(), offsets.end());
    const reference::AttentionShape plain{.heads = shape.heads, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim};
    const auto same = [](const Matrix<double>& a, const Matrix<double>& b) {
      return (a - b).cwiseAbs().maxCoeff() <= 1e-10 * (1 + a.cwiseAbs().maxCoeff());
    };
    const Matrix<double> o = reference::attention_forward(batch, plain, DType::f32, q, k, v);
    const auto gradients = reference::attention_backward(batch, plain, DType::f32, q, k, v, dout);
    EXPECT_TRUE(same(o, expected.o.value));
    EXPECT_TRUE(same(gradients.query, expected.dq.value));
    EXPECT_TRUE(same(gradients.key, expected.dk.value));
    EXPECT_TRUE(same(gradients.value, expected.dv.value));
  }

  Case case_;
  std::unique_ptr<DeviceBuffer> device_offsets_, q_, k_, v_, dout_, o_, lse_, dq_, dk_, dv_;
};

/// Every row of the table that computes the case, forced. Returns how many did.
int check_all(const Case& c, std::uint64_t seed) {
  SCOPED_TRACE(c.name());
  Problem problem(c, seed);
  int count = 0;
  for (const AttentionKernel& kernel : optimized::attention_kernels()) {
    SCOPED_TRACE(kernel.name);
    if (!problem.refusal(kernel).empty()) continue;
    problem.run(kernel);
    problem.check(kernel);
    ++count;
  }
  return count;
}

/// The kernels that compute rows of any lengths with aligned heads: wgmma has its own where the GPU has it.
int own_kernels(DType dtype, std::int64_t head_dim) {
  if (dtype == DType::f32) return 1;
  const bool hopper = optimized::device_attribute(cudaDevAttrComputeCapabilityMajor) == 9;
  return hopper && head_dim <= 128 ? 3 : 2;
}

// Rows that end before, at and after the end of a tile of 16, 32, 64 and 128 tokens, and rows of one token and of none.
const std::vector<std::int32_t> kRagged{1, 63, 0, 64, 65, 17, 130, 300};

TEST_F(AttentionGpu, EveryHeadDimAndDtype) {
  std::uint64_t seed = 1;
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const std::int64_t head_dim : {8, 16, 40, 64, 72, 96, 128, 136, 200, 256}) {
      const int kernels = check_all({.lengths = kRagged, .head_dim = head_dim, .dtype = dtype}, ++seed);
      EXPECT_EQ(kernels, own_kernels(dtype, head_dim));
      if (HasFailure()) return;
    }
  }
}

// Small enough for tools that slow kernels down a hundred times.
TEST_F(AttentionGpu, OwnKernelsOnFewTokens) {
  EXPECT_EQ(check_all({.lengths = {1, 0, 17, 65}, .heads = 4, .kv_heads = 2, .head_dim = 64, .dtype = DType::bf16}, 90),
            own_kernels(DType::bf16, 64));
  EXPECT_EQ(check_all({.lengths = {33}, .heads = 2, .kv_heads = 2, .head_dim = 128, .dtype = DType::f16}, 91),
            own_kernels(DType::f16, 128));
  EXPECT_EQ(check_all({.lengths = {5, 70}, .heads = 2, .kv_heads = 1, .head_dim = 40, .dtype = DType::f32}, 92), 1);
}

TEST_F(AttentionGpu, WholeTilesOnFewTokens) {
  EXPECT_GE(check_all({.lengths = {128, 128}, .heads = 4, .kv_heads = 2, .head_dim = 64, .dtype = DType::bf16}, 93), 2);
}

TEST_F(AttentionGpu, Windows) {
  std::uint64_t seed = 100;
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const std::int64_t window : {1, 2, 31, 64, 65, 128, 1000}) {
      for (const std::int64_t head_dim : {32, 128}) {
        check_all({.lengths = kRagged, .head_dim = head_dim, .window = window, .dtype = dtype}, ++seed);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(AttentionGpu, Groups) {
  std::uint64_t seed = 200;
  for (const auto& [heads, kv_heads] : {std::pair{1, 1}, {3, 3}, {8, 1}, {12, 4}, {16, 2}}) {
    for (const DType dtype : {DType::bf16, DType::f32}) {
      check_all({.lengths = kRagged, .heads = heads, .kv_heads = kv_heads, .head_dim = 128, .dtype = dtype}, ++seed);
      if (HasFailure()) return;
    }
  }
}

TEST_F(AttentionGpu, OddLengthsAndLongRows) {
  std::uint64_t seed = 300;
  for (const std::int32_t length : {1, 2, 63, 64, 65, 127, 128, 129, 1000}) {
    for (const DType dtype : {DType::bf16, DType::f16}) {
      check_all({.lengths = {length}, .heads = 2, .kv_heads = 1, .head_dim = 128, .dtype = dtype}, ++seed);
      if (HasFailure()) return;
    }
  }
}

// Rows of whole tiles.
TEST_F(AttentionGpu, RowsOfOneLength) {
  std::uint64_t seed = 400;
  for (const auto& [rows, length] : {std::pair{1, 128}, {3, 128}, {2, 640}, {1, 1280}}) {
    for (const std::int64_t head_dim : {64, 128}) {
      for (const DType dtype : {DType::bf16, DType::f16}) {
        check_all({.lengths = std::vector<std::int32_t>(rows, length), .head_dim = head_dim, .dtype = dtype}, ++seed);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(AttentionGpu, StronglyNegativeScores) {
  std::uint64_t seed = 500;
  for (const std::int32_t length : {64, 192, 640, 1000, 1280}) {
    for (const DType dtype : {DType::bf16, DType::f32}) {
      check_all({.lengths = {length}, .heads = 2, .kv_heads = 1, .head_dim = 128, .dtype = dtype, .negative = true},
                ++seed);
      if (HasFailure()) return;
    }
  }
}

// head_dim and strides that no 16 bytes divide are left to the plain kernels.
TEST_F(AttentionGpu, OddSizes) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    EXPECT_EQ(check_all({.lengths = kRagged, .head_dim = 33, .dtype = dtype, .gap = 3}, 600), 1);
    EXPECT_EQ(check_all({.lengths = kRagged, .head_dim = 64, .dtype = dtype, .gap = 1}, 601), 1);
  }
}

TEST_F(AttentionGpu, RowsNeverSeeEachOther) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    Problem problem({.lengths = {70, 90, 40}, .head_dim = 128, .dtype = dtype}, 700);
    for (const AttentionKernel& kernel : optimized::attention_kernels()) {
      SCOPED_TRACE(kernel.name);
      if (!problem.refusal(kernel).empty()) continue;
      problem.run(kernel);
      const auto before = problem.outputs();
      Problem other = [&] {
        Problem changed({.lengths = {70, 90, 40}, .head_dim = 128, .dtype = dtype}, 700);
        for (Matrix<double>* x : {&changed.q, &changed.k, &changed.v, &changed.dout}) {
          x->middleRows(70, 90).setConstant(std::nan(""));
        }
        changed.upload();
        return changed;
      }();
      other.run(kernel);
      const auto after = other.outputs();
      for (std::size_t i = 0; i < before.size(); ++i) {
        if (i == 1) continue;  // lse is by head; what it feeds is compared
        const std::size_t token = before[i].size() / 200;
        EXPECT_TRUE(std::equal(before[i].begin(), before[i].begin() + 70 * token, after[i].begin())) << i;
        EXPECT_TRUE(std::equal(before[i].begin() + 160 * token, before[i].end(), after[i].begin() + 160 * token)) << i;
      }
    }
  }
}

// An order of additions that changes shows at long rows only: of 40 backward passes of cuDNN's usual algorithm 7 to 39
// differed at 2,048 tokens, and hardly any at 1,000.
TEST_F(AttentionGpu, SameBitsEveryTime) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    Problem problem({.lengths = {2048}, .heads = 16, .kv_heads = 2, .head_dim = 128, .dtype = dtype}, 800);
    for (const AttentionKernel& kernel : optimized::attention_kernels()) {
      SCOPED_TRACE(kernel.name);
      if (!problem.refusal(kernel).empty()) continue;
      problem.run(kernel);
      const auto first = problem.outputs();
      for (int repeat = 0; repeat < 20; ++repeat) {
        problem.run(kernel);
        ASSERT_EQ(first, problem.outputs()) << "repeat " << repeat;
      }
    }
  }
}

TEST_F(AttentionGpu, TheTableChooses) {
  const auto chosen = [&](const Case& c) {
    const Problem problem(c, 900);
    return optimized::choose_attention_kernel(problem.shape, problem.sizes, problem.tensors()).name;
  };
  const bool hopper = optimized::device_attribute(cudaDevAttrComputeCapabilityMajor) == 9;
  const std::string_view own = hopper ? "warpgroup" : "tensor-core";
  EXPECT_EQ(chosen({.lengths = {100, 20}}), own);
  EXPECT_EQ(chosen({.lengths = {256}, .window = 64}), own);
  EXPECT_EQ(chosen({.lengths = {256, 256}}), own);
  EXPECT_EQ(chosen({.lengths = {256}, .head_dim = 96}), own);
  EXPECT_EQ(chosen({.lengths = {256}, .head_dim = 136}), "tensor-core");
  EXPECT_EQ(chosen({.lengths = {256}, .dtype = DType::f32}), "plain");
  EXPECT_EQ(chosen({.lengths = {256}, .gap = 1}), "plain");
}

// As the step calls it: captured once, replayed with other inputs in the same memory.
TEST_F(AttentionGpu, CapturedIntoAGraph) {
  for (const std::vector<std::int32_t>& lengths : {std::vector<std::int32_t>{256, 256}, {100, 30}}) {
    Problem problem({.lengths = lengths, .head_dim = 128}, 1000);
    const auto t = problem.tensors();
    const optimized::TokenRows rows = problem.rows();
    const DeviceBuffer workspace(optimized::attention_workspace_bytes(problem.shape, problem.sizes.tokens,
                                                                      problem.sizes.rows, problem.sizes.longest));
    const auto run = [&](cudaStream_t stream) {
      optimized::attention_forward(problem.shape, rows, t.q, t.k, t.v, t.o, t.lse, workspace.as<void>(), stream);
      optimized::attention_backward(problem.shape, rows, t.q, t.k, t.v, t.o, t.lse, t.dout, t.dq, t.dk, t.dv,
                                    workspace.as<void>(), stream);
    };
    problem.poison();
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    QSHARD_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
    run(stream);
    QSHARD_CUDA_CHECK(cudaStreamSynchronize(stream));
    const auto expected = problem.outputs();
    problem.check(optimized::choose_attention_kernel(problem.shape, problem.sizes, t));
    QSHARD_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    run(stream);
    QSHARD_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    QSHARD_CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
    for (int repeat = 0; repeat < 2; ++repeat) {
      problem.poison();
      QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
      QSHARD_CUDA_CHECK(cudaGraphLaunch(replay, stream));
      QSHARD_CUDA_CHECK(cudaStreamSynchronize(stream));
      EXPECT_EQ(expected, problem.outputs());
    }
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
  }
}

TEST_F(AttentionGpu, SeveralStreamsAtOnce) {
  on_streams(4, [](int s, cudaStream_t) {
    check_all({.lengths = {64, 200}, .heads = 4 + 4 * s, .kv_heads = 4, .head_dim = 128}, 1100 + s);
  });
}

TEST_F(AttentionGpu, RefusesBadInput) {
  const Problem problem({.lengths = {10, 20}}, 1200);
  const DeviceBuffer workspace(
      optimized::attention_workspace_bytes(problem.shape, problem.sizes.tokens, 2, problem.sizes.longest));
  const auto t = problem.tensors();
  const auto call = [&](const std::function<void(AttentionShape&, optimized::TokenRows&, const void*&)>& change) {
    AttentionShape shape = problem.shape;
    optimized::TokenRows rows = problem.rows();
    const void* q = t.q;
    change(shape, rows, q);
    optimized::attention_forward(shape, rows, q, t.k, t.v, t.o, t.lse, workspace.as<void>(), nullptr);
  };
  expect_bad_input({"query", "null"}, [&] { call([](auto&, auto&, auto& q) { q = nullptr; }); });
  expect_bad_input({"not aligned to 2"},
                   [&] { call([](auto&, auto&, auto& q) { q = static_cast<const std::byte*>(q) + 1; }); });
  expect_bad_input({"4 query heads", "3 key/value"},
                   [&] { call([](auto& shape, auto&, auto&) { shape.kv_heads = 3; }); });
  expect_bad_input({"head_dim 264"}, [&] { call([](auto& shape, auto&, auto&) { shape.head_dim = 264; }); });
  expect_bad_input({"stride", "queries"}, [&] { call([](auto& shape, auto&, auto&) { shape.q_stride = 255; }); });
  expect_bad_input({"window"}, [&] { call([](auto& shape, auto&, auto&) { shape.window = -1; }); });
  expect_bad_input({"dtype"}, [&] { call([](auto& shape, auto&, auto&) { shape.dtype = DType::u8; }); });
  expect_bad_input({"30 tokens", "2 rows of at most 14"},
                   [&] { call([](auto&, auto& rows, auto&) { rows.longest = 14; }); });
  expect_bad_input({"offsets", "null"}, [&] { call([](auto&, auto& rows, auto&) { rows.offsets = nullptr; }); });
  expect_bad_input({"no kernel \"flash\"", "tensor-core", "plain"}, [] { optimized::attention_kernel("flash"); });
}

}  // namespace
}  // namespace qshard::test
