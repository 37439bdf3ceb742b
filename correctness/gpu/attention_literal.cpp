#include "correctness/gpu/attention_literal.h"

#include <algorithm>
#include <cmath>

#include "reference/parallel.h"

namespace qshard::test {

namespace {

using Row = Eigen::Array<double, 1, Eigen::Dynamic>;

/// One query head of one row of tokens: its weights and their errors, and what they give.
class Head {
 public:
  Head(const optimized::AttentionShape& shape, const AttentionRounding& rounding)
      : shape_(shape), rounding_(rounding) {}

  /// The sum of n terms in float, relative to the sum of their magnitudes.
  static double sum_error(std::int64_t n) { return (static_cast<double>(n) + 8) * 0x1p-23; }

  template <typename Block>
  void run(const Block& q, const Block& k, const Block& v, const Block& dout, std::int64_t head, std::int64_t begin,
           LiteralAttention& result) const {
    const std::int64_t d = shape_.head_dim;
    const std::int64_t kv_head = head / (shape_.heads / shape_.kv_heads);
    const double scale = 1 / std::sqrt(static_cast<double>(d));
    for (std::int64_t i = 0; i < q.rows(); ++i) {
      const std::int64_t first = shape_.window == 0 ? 0 : std::max<std::int64_t>(0, i - shape_.window + 1);
      const std::int64_t n = i + 1 - first;
      const auto keys = k.middleRows(first, n);
      const auto values = v.middleRows(first, n);
      Row p = scale * (keys * q.row(i).transpose()).transpose().array();
      const Row magnitudes = scale * (keys.cwiseAbs() * q.row(i).cwiseAbs().transpose()).transpose().array();
      const double most = p.maxCoeff();
      const double lse = most + std::log((p - most).exp().sum());
      const double error =
          (sum_error(d) * magnitudes + 0x1p-22 * (p.abs() + std::abs(lse) + 1)).maxCoeff() + sum_error(n);
      p = (p - lse).exp();
      const double weight_error = 2 * error + rounding_.weights;

      auto o = result.o.value.block(begin + i, head * d, 1, d);
      auto o_bound = result.o.bound.block(begin + i, head * d, 1, d);
      o = p.matrix() * values;
      const Row value_magnitudes = (p.matrix() * values.cwiseAbs()).array();
      const double most_value = values.cwiseAbs().maxCoeff();
      o_bound.array() = 1.01 * ((weight_error + sum_error(n)) * value_magnitudes + rounding_.result * o.array().abs()) +
                        rounding_.tiny * (1 + static_cast<double>(n) * most_value);
      result.lse.value(begin + i, head) = lse;
      result.lse.bound(begin + i, head) = 1.01 * error;

      const Row dp = (values * dout.row(i).transpose()).transpose().array();
      const Row dp_error = sum_error(d) * (values.cwiseAbs() * dout.row(i).cwiseAbs().transpose()).transpose().array();
      const double delta = (p * dp).sum();
      const double delta_error = (dout.row(i).cwiseAbs().array() * o_bound.array()).sum() +
                                 sum_error(d) * (dout.row(i).array() * o.array()).abs().sum();
      const Row ds = p * (dp - delta);
      const Row ds_error = 1.01 * (weight_error * ds.abs() + p * (dp_error + delta_error)) + rounding_.tiny;

      auto dq = result.dq.value.block(begin + i, head * d, 1, d);
      dq = scale * ds.matrix() * keys;
      result.dq.bound.block(begin + i, head * d, 1, d).array() =
          1.01 * scale * ((ds_error + sum_error(n) * ds.abs()).matrix() * keys.cwiseAbs()).array() +
          rounding_.result * dq.array().abs() + rounding_.tiny;

      // Each query of the group adds to the same sums; the roundings of a head's own and of the group's sums are of
      // magnitudes, which are not smaller.
      const double terms = sum_error(q.rows() * shape_.heads / shape_.kv_heads);
      auto dk = result.dk.value.block(begin + first, kv_head * d, n, d);
      auto dk_bound = result.dk.bound.block(begin + first, kv_head * d, n, d);
      dk += scale * ds.matrix().transpose() * q.row(i);
      dk_bound +=
          1.01 * scale * (ds_error + (terms + rounding_.result) * ds.abs()).matrix().transpose() * q.row(i).cwiseAbs();
      auto dv = result.dv.value.block(begin + first, kv_head * d, n, d);
      auto dv_bound = result.dv.bound.block(begin + first, kv_head * d, n, d);
      dv += p.matrix().transpose() * dout.row(i);
      dv_bound += 1.01 * ((weight_error + terms + rounding_.result) * p + rounding_.tiny).matrix().transpose() *
                  dout.row(i).cwiseAbs();
    }
  }

 private:
  const optimized::AttentionShape& shape_;
  const AttentionRounding& rounding_;
};

BoundedMatrix zeros(std::int64_t rows, std::int64_t columns) {
  return {reference::Matrix<double>::Zero(rows, columns), reference::Matrix<double>::Zero(rows, columns)};
}

}  // namespace

LiteralAttention literal_attention(const optimized::AttentionShape& shape, const std::vector<std::int32_t>& offsets,
                                   const AttentionRounding& rounding, const reference::Matrix<double>& q,
                                   const reference::Matrix<double>& k, const reference::Matrix<double>& v,
                                   const reference::Matrix<double>& dout) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t group = shape.heads / shape.kv_heads;
  LiteralAttention result{zeros(q.rows(), q.cols()), zeros(q.rows(), shape.heads), zeros(q.rows(), q.cols()),
                          zeros(k.rows(), k.cols()), zeros(k.rows(), k.cols())};
  const auto rows = static_cast<std::int64_t>(offsets.size()) - 1;
  const Head work(shape, rounding);
  reference::parallel_for(rows * shape.kv_heads, 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t begin = offsets[task / shape.kv_heads];
    const std::int64_t length = offsets[task / shape.kv_heads + 1] - begin;
    const std::int64_t kv_head = task % shape.kv_heads;
    for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const auto block = [&](const reference::Matrix<double>& x, std::int64_t h) {
        return reference::Matrix<double>(x.block(begin, h * d, length, d));
      };
      work.run(block(q, head), block(k, kv_head), block(v, kv_head), block(dout, head), head, begin, result);
    }
  });
  result.dk.bound.array() += rounding.tiny;
  result.dv.bound.array() += rounding.tiny;
  return result;
}

}  // namespace qshard::test
