#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "correctness/gpu/matrix_gpu_testing.h"
#include "optimized/dropout_masks.h"
#include "optimized/lora.h"
#include "reference/dropout.h"
#include "reference/lora.h"

namespace qshard::test {

/// Adapters that share an input. The output of projection i is [tokens, out + 8 i].
struct LoraCase {
  DType dtype = DType::bf16;
  std::vector<std::int64_t> row_lengths;
  std::int64_t in = 0;
  std::int64_t out = 0;
  std::vector<std::int64_t> ranks;
  double dropout = 0;
  double scaling = 1;
  std::int64_t padding = 0;  // elements between the rows of x, dx, y and dy
  std::int64_t first = 0;    // elements before them, after an aligned address

  [[nodiscard]] std::string name() const {
    return fmt::format("{} {} rows, in {}, out {}, {} ranks from {}, dropout {}, scaling {}, padding {}, first {}",
                       torch_name(dtype), row_lengths.size(), in, out, ranks.size(), ranks[0], dropout, scaling,
                       padding, first);
  }
};

/// One of them: what goes in, and what comes out (on the device in float, exactly as it was stored).
struct LoraValues {
  Matrix<float> a, b, y, dy;  // y: the frozen layer's output, updated in place
  Matrix<float> da, db;       // what the gradients start from
  Matrix<float> h, g;         // out
};

struct LoraProblem {
  LoraCase setting;
  TokenBatch batch;
  Matrix<float> x, dx;
  std::vector<LoraValues> projections;

  /// Elements are draw(generator, deviation), rounded to the dtype.
  template <typename Draw>
  LoraProblem(LoraCase setting_, std::uint64_t seed, const Draw& draw)
      : setting(std::move(setting_)), batch(random_batch(setting.row_lengths, 10, seed)) {
    std::mt19937_64 generator(seed);
    const auto matrix = [&](std::int64_t rows, std::int64_t cols) {
      Matrix<float> values(rows, cols);
      for (Eigen::Index i = 0; i < values.size(); ++i) values.data()[i] = draw(generator);
      reference::round_to(setting.dtype, values);
      return values;
    };
    x = matrix(batch.tokens(), setting.in);
    dx = matrix(batch.tokens(), setting.in);
    for (std::size_t i = 0; i < setting.ranks.size(); ++i) {
      const std::int64_t out = setting.out + 8 * static_cast<std::int64_t>(i);
      const std::int64_t rank = setting.ranks[i];
      projections.push_back({matrix(rank, setting.in),
                             matrix(out, rank),
                             matrix(batch.tokens(), out),
                             matrix(batch.tokens(), out),
                             matrix(rank, setting.in),
                             matrix(out, rank),
                             {},
                             {}});
    }
  }

  [[nodiscard]] optimized::DropoutMask mask() const { return {0x123456789ABCDEF0, 17, 3, 0, setting.dropout}; }
  /// Projections are numbered from 4.
  [[nodiscard]] reference::DropoutPlace place(std::size_t projection) const {
    return {mask().seed, mask().step, mask().layer, static_cast<std::uint32_t>(4 + projection)};
  }
  template <typename T>
  [[nodiscard]] Matrix<T> dropped(std::size_t projection, Matrix<T> values) const {
    reference::dropout(place(projection), setting.dropout, batch, setting.dtype, values);
    return values;
  }
  [[nodiscard]] Matrix<float> dropped_input(std::size_t projection) const { return dropped(projection, x); }
  [[nodiscard]] optimized::LoraInputShape input_shape() const {
    return {batch.tokens(), setting.in, setting.dtype, setting.dropout};
  }
  [[nodiscard]] optimized::LoraOutputShape output_shape(std::size_t projection) const {
    return {batch.tokens(), projections[projection].b.rows(), setting.ranks[projection], setting.dtype,
            setting.scaling};
  }
};

/// A problem's tensors in device memory, and the calls of a training step. h and g take what the device made before.
class LoraOnDevice {
 public:
  explicit LoraOnDevice(const LoraProblem& problem)
      : problem_(problem),
        rows_(problem.batch),
        x_(activations(problem.x)),
        dx_(activations(problem.dx)),
        workspace_(workspace_bytes(problem)) {
    for (std::size_t i = 0; i < problem.projections.size(); ++i) {
      projections_.emplace_back(std::make_unique<Projection>(problem, i));
    }
  }

  /// Everything once, the workspace filled with NaN before each call.
  void run() {
    make_masks();
    down();
    for (std::size_t i = 0; i < projections_.size(); ++i) up(i);
    down_backward();
    input_gradient();
    QSHARD_CUDA_CHECK(cudaDeviceSynchronize());
  }

  void make_masks() {
    if (problem_.setting.dropout == 0) return;
    std::vector<optimized::DropoutMaskBits> masks;
    for (std::size_t i = 0; i < projections_.size(); ++i) {
      masks.push_back({problem_.place(i).projection, problem_.setting.in, projections_[i]->mask->as<std::uint8_t>()});
    }
    optimized::dropout_masks(problem_.mask(), rows_.view(), masks, nullptr);
  }

  void down() {
    std::vector<optimized::LoraDown> tasks;
    for (const auto& each : projections_) tasks.push_back({each->a.data(), each->rank, each->bits(), each->h.data()});
    workspace_.poison();
    optimized::lora_down(problem_.input_shape(), x_.data(), x_.stride(), tasks, workspace_.as<void>(),
                         workspace_.bytes(), nullptr);
  }

  void up(std::size_t i) {
    Projection& each = *projections_[i];
    const optimized::LoraOutputShape shape = problem_.output_shape(i);
    optimized::lora_up_add(shape, each.h.data(), each.b.data(), each.y.data(), each.y.stride(), nullptr);
    workspace_.poison();
    optimized::lora_up_backward(shape, each.dy.data(), each.dy.stride(), each.h.data(), each.b.data(), each.g.data(),
                                static_cast<float*>(each.db.data()), workspace_.as<void>(), workspace_.bytes(),
                                nullptr);
  }

  void down_backward() {
    std::vector<optimized::LoraDownBackward> tasks;
    for (const auto& each : projections_) {
      tasks.push_back({each->g.data(), each->rank, each->bits(), static_cast<float*>(each->da.data())});
    }
    workspace_.poison();
    optimized::lora_down_backward(problem_.input_shape(), x_.data(), x_.stride(), tasks, workspace_.as<void>(),
                                  workspace_.bytes(), nullptr);
  }

  void input_gradient() {
    std::vector<optimized::LoraInputGradient> tasks;
    for (const auto& each : projections_) tasks.push_back({each->g.data(), each->a.data(), each->rank, each->bits()});
    optimized::lora_input_gradient(problem_.input_shape(), tasks, dx_.data(), dx_.stride(), nullptr);
  }

  [[nodiscard]] Matrix<float> dx() const { return dx_.values(); }
  /// What the device holds, h and g without the columns that pad them, which must be 0.
  [[nodiscard]] LoraValues values(std::size_t i) const {
    const Projection& each = *projections_[i];
    return {each.a.values(),
            each.b.values(),
            each.y.values(),
            each.dy.values(),
            each.da.values(),
            each.db.values(),
            unpadded(each.h, each.rank),
            unpadded(each.g, each.rank)};
  }
  [[nodiscard]] std::vector<std::uint8_t> mask_bits(std::size_t i) const {
    return projections_[i]->mask->download<std::uint8_t>();
  }
  /// The bytes of all results, to compare runs.
  [[nodiscard]] std::vector<std::uint8_t> result_bytes() const {
    std::vector<std::uint8_t> all = dx_.bytes();
    for (const auto& each : projections_) {
      for (const DeviceMatrix* matrix : {&each->h, &each->y, &each->g, &each->da, &each->db}) {
        const std::vector<std::uint8_t> more = matrix->bytes();
        all.insert(all.end(), more.begin(), more.end());
      }
    }
    return all;
  }

 private:
  struct Projection {
    std::int64_t rank;
    DeviceMatrix a, b, y, dy, da, db, h, g;
    std::optional<DeviceBuffer> mask;

    Projection(const LoraProblem& problem, std::size_t i) : Projection(problem, i, problem.projections[i]) {}
    Projection(const LoraProblem& problem, std::size_t i, const LoraValues& values)
        : rank(problem.setting.ranks[i]),
          a(values.a, problem.setting.dtype, problem.setting.in),
          b(values.b, problem.setting.dtype, rank),
          y(values.y, problem.setting.dtype, values.y.cols() + problem.setting.padding, problem.setting.first),
          dy(values.dy, problem.setting.dtype, values.dy.cols() + problem.setting.padding, problem.setting.first),
          da(values.da, DType::f32, problem.setting.in),
          db(values.db, DType::f32, rank),
          h(padded(problem)),
          g(padded(problem)) {
      if (problem.setting.dropout == 0) return;
      mask.emplace(problem.batch.tokens() * optimized::dropout_mask_stride(problem.setting.in));
    }

    [[nodiscard]] DeviceMatrix padded(const LoraProblem& problem) const {
      const std::int64_t stride = optimized::lora_rank_stride(rank);
      return {problem.batch.tokens(), stride, problem.setting.dtype, stride};
    }
    [[nodiscard]] const std::uint8_t* bits() const { return mask ? mask->as<std::uint8_t>() : nullptr; }
  };

  [[nodiscard]] DeviceMatrix activations(const Matrix<float>& values) const {
    const LoraCase& setting = problem_.setting;
    return {values, setting.dtype, values.cols() + setting.padding, setting.first};
  }

  static std::size_t workspace_bytes(const LoraProblem& problem) {
    std::size_t bytes = optimized::lora_input_workspace_bytes(problem.input_shape(), problem.setting.ranks);
    for (std::size_t i = 0; i < problem.projections.size(); ++i) {
      bytes = std::max(bytes, optimized::lora_output_workspace_bytes(problem.output_shape(i)));
    }
    return bytes;
  }

  static Matrix<float> unpadded(const DeviceMatrix& matrix, std::int64_t rank) {
    const Matrix<float> all = matrix.values();
    EXPECT_TRUE((all.rightCols(all.cols() - rank).array() == 0).all()) << "what pads a row of h or g is not 0";
    return all.leftCols(rank);
  }

  const LoraProblem& problem_;
  DeviceRows rows_;
  DeviceMatrix x_, dx_;
  DeviceBuffer workspace_;
  std::vector<std::unique_ptr<Projection>> projections_;
};

}  // namespace qshard::test
