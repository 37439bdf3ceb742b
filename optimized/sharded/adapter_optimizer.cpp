#include "optimized/sharded/adapter_optimizer.h"

#include "optimized/adamw.h"
#include "optimized/device/cuda_check.h"
#include "optimized/sum.h"

namespace qshard::optimized {

AdapterOptimizer::AdapterOptimizer(const ShardLayout& layout, const ShardPlaces& places, const AdamWOptions& options,
                                   DType moment_dtype, Arena& arena)
    : options_(options), moment_dtype_(moment_dtype) {
  for (std::size_t unit = 0; unit < layout.units.size(); ++unit) {
    std::vector<std::int64_t>& firsts = first_elements_.emplace_back();
    for (std::size_t flat = 0; flat < layout.units[unit].flats.size(); ++flat) {
      const Flat& of = layout.units[unit].flats[flat];
      const auto element = static_cast<std::int64_t>(size_of(of.dtype));
      firsts.push_back((places.offset(unit, flat) - places.trainable_begin()) / element);
      if (!of.trainable) continue;
      parameter_dtype_ = of.dtype;
      elements_ += of.shard_bytes / element;
    }
  }
  const std::int64_t moment_bytes = elements_ * static_cast<std::int64_t>(size_of(moment_dtype));
  exp_avg_ = arena.take(moment_bytes, "optimizer state");
  exp_avg_sq_ = arena.take(moment_bytes, "optimizer state");
  partials_ = arena.take(kSumPartials * 8, "optimizer state");
  norm_squared_ = arena.take(8, "optimizer state");
  factor_ = arena.take(4, "optimizer state");
}

void AdapterOptimizer::clear(cudaStream_t stream) {
  const std::size_t bytes = static_cast<std::size_t>(elements_) * size_of(moment_dtype_);
  QSHARD_CUDA_CHECK(cudaMemsetAsync(exp_avg_.as(), 0, bytes, stream));
  QSHARD_CUDA_CHECK(cudaMemsetAsync(exp_avg_sq_.as(), 0, bytes, stream));
}

void AdapterOptimizer::sum_squares_of(const float* gradients, cudaStream_t stream) {
  QSHARD_CUDA_CHECK(cudaMemsetAsync(norm_squared_.as(), 0, 8, stream));
  sum_squares(gradients, elements_, partials_.as<double>(), norm_squared_.as<double>(), stream);
}

void AdapterOptimizer::update(void* parameters, const float* gradients, double max_grad_norm, double learning_rate,
                              std::int64_t step, cudaStream_t stream) {
  clip_factor(norm_squared_.as<double>(), max_grad_norm, factor_.as<float>(), stream);
  adamw_update({options_, learning_rate, step, parameter_dtype_, moment_dtype_}, elements_, parameters, gradients,
               factor_.as<float>(), exp_avg_.as(), exp_avg_sq_.as(), stream);
}

}  // namespace qshard::optimized
