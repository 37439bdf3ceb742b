#include "optimized/sharded/adapter_moments.h"

#include "core/tensor/codebook.h"
#include "optimized/adamw.h"
#include "optimized/adamw8bit.h"
#include "optimized/device/cuda_check.h"

namespace qshard::optimized {

namespace {

constexpr std::size_t kMapBytes = 256 * sizeof(float);

}  // namespace

AdapterMoments::AdapterMoments(const AdamWOptions& options, DType parameter_dtype, std::int64_t elements, Arena& arena)
    : options_(options),
      parameter_dtype_(parameter_dtype),
      elements_(elements),
      arrays_(moment_arrays(options.moments, parameter_dtype)) {
  for (const MomentArray& array : arrays_) {
    pieces_.push_back(arena.take(moment_bytes(array, elements), "optimizer state"));
  }
  if (is_8bit()) maps_ = arena.take(2 * kMapBytes, "optimizer state");
}

std::byte* AdapterMoments::at(std::size_t array, std::int64_t element) const {
  return pieces_[array].as<std::byte>() + moment_bytes(arrays_[array], element);
}

void AdapterMoments::clear(cudaStream_t stream) {
  for (std::size_t i = 0; i < arrays_.size(); ++i) {
    const auto bytes = static_cast<std::size_t>(moment_bytes(arrays_[i], elements_));
    QSHARD_CUDA_CHECK(cudaMemsetAsync(pieces_[i].as(), 0, bytes, stream));
  }
  if (!is_8bit()) return;
  const auto copy = [&](std::byte* to, const std::array<float, 256>& map) {
    QSHARD_CUDA_CHECK(cudaMemcpyAsync(to, map.data(), kMapBytes, cudaMemcpyHostToDevice, stream));
  };
  copy(maps_.as<std::byte>(), dynamic_map());
  copy(maps_.as<std::byte>() + kMapBytes, unsigned_dynamic_map());
}

void AdapterMoments::update(void* parameters, const float* gradients, const float* factor, double learning_rate,
                            std::int64_t step, cudaStream_t stream) {
  const AdamWStep of{options_, learning_rate, step, parameter_dtype_, arrays_[0].dtype};
  if (!is_8bit()) {
    adamw_update(of, elements_, parameters, gradients, factor, pieces_[0].as(), pieces_[1].as(), stream);
    return;
  }
  const auto* maps = maps_.as<float>();
  adamw8bit_update(of, elements_, parameters, gradients, factor,
                   {pieces_[0].as<std::uint8_t>(), pieces_[1].as<float>(), maps},
                   {pieces_[2].as<std::uint8_t>(), pieces_[3].as<float>(), maps + 256}, stream);
}

}  // namespace qshard::optimized
