#include "optimized/sharded/adapter_optimizer.h"

#include "optimized/adamw.h"
#include "optimized/device/cuda_check.h"
#include "optimized/sum.h"

namespace qshard::optimized {

AdapterOptimizer::AdapterOptimizer(const ShardLayout& layout, const ShardPlaces& places, const AdamWOptions& options,
                                   Arena& arena) {
  DType parameter_dtype = DType::bf16;  // all trainable flats have one
  for (std::size_t unit = 0; unit < layout.units.size(); ++unit) {
    std::vector<std::int64_t>& firsts = first_elements_.emplace_back();
    for (std::size_t flat = 0; flat < layout.units[unit].flats.size(); ++flat) {
      const Flat& of = layout.units[unit].flats[flat];
      const auto element = static_cast<std::int64_t>(size_of(of.dtype));
      firsts.push_back(of.trainable ? places.offset(unit, flat) / element : 0);
      if (!of.trainable) continue;
      parameter_dtype = of.dtype;
      elements_ += of.shard_bytes / element;
    }
  }
  moments_ = AdapterMoments(options, parameter_dtype, elements_, arena);
  partials_ = arena.take(kSumPartials * 8, "optimizer state");
  norm_squared_ = arena.take(8, "optimizer state");
  factor_ = arena.take(4, "optimizer state");
}

void AdapterOptimizer::sum_squares_of(const float* gradients, cudaStream_t stream) {
  QSHARD_CUDA_CHECK(cudaMemsetAsync(norm_squared_.as(), 0, 8, stream));
  sum_squares(gradients, elements_, partials_.as<double>(), norm_squared_.as<double>(), stream);
}

void AdapterOptimizer::update(void* parameters, const float* gradients, double max_grad_norm, double learning_rate,
                              std::int64_t step, cudaStream_t stream) {
  clip_factor(norm_squared_.as<double>(), max_grad_norm, factor_.as<float>(), stream);
  moments_.update(parameters, gradients, factor_.as<float>(), learning_rate, step, stream);
}

}  // namespace qshard::optimized
