#include "optimized/lora.h"

#include <algorithm>
#include <array>

#include "core/base/error.h"
#include "optimized/device/cuda_check.h"
#include "optimized/dropout_masks.h"
#include "optimized/lora/rank_cuts.h"
#include "optimized/lora/rank_gradient.h"
#include "optimized/lora/rank_plain.h"
#include "optimized/lora/rank_product.h"
#include "optimized/lora/rank_update.h"

namespace qshard::optimized {

namespace {

static_assert(kMostSharedInputs == kMostProducts && kMostLoraRank == kGroupColumns * kMostColumnGroups / kMostProducts);

constexpr std::size_t kRunBytes = 16;
constexpr std::int64_t kMostTokens = 1 << 22;    // thread blocks of a grid's second dimension, and 32-bit counts
constexpr std::int64_t kMostFeatures = 1 << 24;  // 32-bit counts

void check_size(std::int64_t value, std::int64_t least, std::int64_t most, const char* what) {
  if (value < least || value > most) fail_input("{} is {}, but must be from {} to {}", what, value, least, most);
}

void check_rank(std::int64_t rank) {
  check_size(rank, 1, kMostLoraRank, "the rank of an adapter");
}

void check_shape(const LoraInputShape& shape, std::size_t projections) {
  check_floating(shape.dtype, "the dtype of an adapter's activations");
  check_size(shape.tokens, 0, kMostTokens, "the number of an adapter's tokens");
  check_size(shape.in_features, 1, kMostFeatures, "the number of an adapter's input features");
  check_size(static_cast<std::int64_t>(projections), 1, kMostSharedInputs, "the number of adapters of one input");
  if (!(shape.dropout >= 0 && shape.dropout < 1)) {
    fail_input("lora_dropout is {}; give a probability of at least 0 and below 1", shape.dropout);
  }
}

void check_shape(const LoraOutputShape& shape) {
  check_floating(shape.dtype, "the dtype of an adapter's activations");
  check_size(shape.tokens, 0, kMostTokens, "the number of an adapter's tokens");
  check_size(shape.out_features, 1, kMostFeatures, "the number of an adapter's output features");
  check_rank(shape.rank);
}

void check_mask(const LoraInputShape& shape, const std::uint8_t* mask) {
  if (shape.dropout != 0) check_pointer(mask, kRunBytes, "an adapter's dropout mask");
  if (shape.dropout == 0 && mask != nullptr) fail_input("an adapter has a dropout mask, but its lora_dropout is 0");
}

void check_workspace(const void* workspace, std::size_t bytes, std::size_t needed) {
  check_pointer(workspace, kRunBytes, "the workspace of an adapter");
  check_at_least(static_cast<std::int64_t>(bytes), static_cast<std::int64_t>(needed),
                 "the workspace of an adapter, in bytes,");
}

void check_activations(const void* values, std::int64_t stride, std::int64_t features, DType dtype, const char* what) {
  check_pointer(values, size_of(dtype), what);
  check_at_least(stride, features, "the stride of an adapter's activations");
}

bool is_wide(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % kRunBytes == 0;
}

/// Whether rows of so many 16-bit elements begin on 16 bytes where the first one does.
bool is_wide(std::int64_t elements) {
  return elements % 8 == 0;
}

float keep_scale(const LoraInputShape& shape) {
  return static_cast<float>(1 / (1 - shape.dropout));
}

template <typename Projection>
std::size_t input_workspace_bytes(const LoraInputShape& shape, std::span<const Projection> projections) {
  std::array<std::int64_t, kMostSharedInputs> ranks{};
  std::transform(projections.begin(), projections.end(), ranks.begin(), [](const auto& each) { return each.rank; });
  return lora_input_workspace_bytes(shape, std::span<const std::int64_t>(ranks).first(projections.size()));
}

std::size_t workspace_bytes(DType dtype, std::int64_t tokens, std::int64_t features,
                            std::span<const std::int64_t> ranks) {
  if (dtype == DType::f32 || tokens == 0) return 0;
  std::int64_t columns = 0;
  for (const std::int64_t rank : ranks) columns += lora_rank_stride(rank);
  const int groups = count_groups(ranks);
  const std::int64_t product = product_partial_rows(tokens, features, groups) * columns;
  const std::int64_t gradient = gradient_slices(tokens, features, groups) * features * columns;
  return std::max(product, gradient) * sizeof(float);
}

}  // namespace

std::size_t lora_input_workspace_bytes(const LoraInputShape& shape, std::span<const std::int64_t> ranks) {
  check_shape(shape, ranks.size());
  for (const std::int64_t rank : ranks) check_rank(rank);
  return workspace_bytes(shape.dtype, shape.tokens, shape.in_features, ranks);
}

std::size_t lora_output_workspace_bytes(const LoraOutputShape& shape) {
  check_shape(shape);
  return workspace_bytes(shape.dtype, shape.tokens, shape.out_features, {&shape.rank, 1});
}

void lora_down(const LoraInputShape& shape, const void* x, std::int64_t x_stride, std::span<const LoraDown> projections,
               void* workspace, std::size_t workspace_bytes, cudaStream_t stream) {
  const std::size_t needed = input_workspace_bytes(shape, projections);
  if (shape.tokens == 0) return;
  check_activations(x, x_stride, shape.in_features, shape.dtype, "the input of an adapter");
  if (needed != 0) check_workspace(workspace, workspace_bytes, needed);
  bool wide = is_wide(x) && is_wide(x_stride) && is_wide(shape.in_features);
  std::array<RankProduct, kMostSharedInputs> products;
  for (std::size_t i = 0; i < projections.size(); ++i) {
    const auto& [a, rank, mask, h] = projections[i];
    check_pointer(a, size_of(shape.dtype), "an adapter's A");
    check_pointer(h, kRunBytes, "an adapter's h");
    check_mask(shape, mask);
    wide = wide && is_wide(a);
    products[i] = {a, rank, mask, h};
  }
  const ScaledInput input{
      x, x_stride, shape.tokens, shape.in_features, keep_scale(shape), dropout_mask_stride(shape.in_features)};
  const auto used = std::span<const RankProduct>(products).first(projections.size());
  if (shape.dtype == DType::f32) return rank_product_plain(true, input, used, stream);
  rank_product(shape.dtype, wide, true, input, used, static_cast<float*>(workspace), stream);
}

void lora_up_add(const LoraOutputShape& shape, const void* h, const void* b, void* y, std::int64_t y_stride,
                 cudaStream_t stream) {
  check_shape(shape);
  if (shape.tokens == 0) return;
  check_activations(y, y_stride, shape.out_features, shape.dtype, "the output of an adapter");
  check_pointer(h, kRunBytes, "an adapter's h");
  check_pointer(b, size_of(shape.dtype), "an adapter's B");
  const bool wide = is_wide(y) && is_wide(y_stride) && is_wide(shape.out_features) && is_wide(b) && is_wide(shape.rank);
  const UpdatedOutput output{y, y_stride, shape.tokens, shape.out_features, static_cast<float>(shape.scaling), 0};
  const RankUpdate update{h, b, shape.rank, nullptr};
  if (shape.dtype == DType::f32) return rank_update_plain(true, output, {&update, 1}, stream);
  rank_update(shape.dtype, wide, true, output, {&update, 1}, stream);
}

void lora_up_backward(const LoraOutputShape& shape, const void* dy, std::int64_t dy_stride, const void* h,
                      const void* b, void* g, float* db, void* workspace, std::size_t workspace_bytes,
                      cudaStream_t stream) {
  const std::size_t needed = lora_output_workspace_bytes(shape);
  if (shape.tokens == 0) return;
  check_activations(dy, dy_stride, shape.out_features, shape.dtype, "the output gradient of an adapter");
  check_pointer(h, kRunBytes, "an adapter's h");
  check_pointer(b, size_of(shape.dtype), "an adapter's B");
  check_pointer(g, kRunBytes, "an adapter's g");
  check_pointer(db, sizeof(float), "an adapter's dB");
  if (needed != 0) check_workspace(workspace, workspace_bytes, needed);
  const bool wide = is_wide(dy) && is_wide(dy_stride) && is_wide(shape.out_features);
  const ScaledInput input{dy, dy_stride, shape.tokens, shape.out_features, static_cast<float>(shape.scaling), 0};
  const RankProduct product{b, shape.rank, nullptr, g};
  const RankGradient gradient{h, shape.rank, nullptr, db};
  if (shape.dtype == DType::f32) {
    rank_product_plain(false, input, {&product, 1}, stream);
    return rank_gradient_plain(false, input, {&gradient, 1}, stream);
  }
  auto* partials = static_cast<float*>(workspace);
  rank_product(shape.dtype, wide && is_wide(b) && is_wide(shape.rank), false, input, {&product, 1}, partials, stream);
  rank_gradient(shape.dtype, wide, false, input, {&gradient, 1}, partials, stream);
}

void lora_down_backward(const LoraInputShape& shape, const void* x, std::int64_t x_stride,
                        std::span<const LoraDownBackward> projections, void* workspace, std::size_t workspace_bytes,
                        cudaStream_t stream) {
  const std::size_t needed = input_workspace_bytes(shape, projections);
  if (shape.tokens == 0) return;
  check_activations(x, x_stride, shape.in_features, shape.dtype, "the input of an adapter");
  if (needed != 0) check_workspace(workspace, workspace_bytes, needed);
  std::array<RankGradient, kMostSharedInputs> gradients;
  for (std::size_t i = 0; i < projections.size(); ++i) {
    const auto& [g, rank, mask, da] = projections[i];
    check_pointer(g, kRunBytes, "an adapter's g");
    check_pointer(da, sizeof(float), "an adapter's dA");
    check_mask(shape, mask);
    gradients[i] = {g, rank, mask, da};
  }
  const ScaledInput input{
      x, x_stride, shape.tokens, shape.in_features, keep_scale(shape), dropout_mask_stride(shape.in_features)};
  const auto used = std::span<const RankGradient>(gradients).first(projections.size());
  if (shape.dtype == DType::f32) return rank_gradient_plain(true, input, used, stream);
  const bool wide = is_wide(x) && is_wide(x_stride) && is_wide(shape.in_features);
  rank_gradient(shape.dtype, wide, true, input, used, static_cast<float*>(workspace), stream);
}

void lora_input_gradient(const LoraInputShape& shape, std::span<const LoraInputGradient> projections, void* dx,
                         std::int64_t dx_stride, cudaStream_t stream) {
  check_shape(shape, projections.size());
  if (shape.tokens == 0) return;
  check_activations(dx, dx_stride, shape.in_features, shape.dtype, "the input gradient of an adapter");
  bool wide = is_wide(dx) && is_wide(dx_stride) && is_wide(shape.in_features);
  std::array<RankUpdate, kMostSharedInputs> updates;
  for (std::size_t i = 0; i < projections.size(); ++i) {
    const auto& [g, a, rank, mask] = projections[i];
    check_rank(rank);
    check_pointer(g, kRunBytes, "an adapter's g");
    check_pointer(a, size_of(shape.dtype), "an adapter's A");
    check_mask(shape, mask);
    wide = wide && is_wide(a);
    updates[i] = {g, a, rank, mask};
  }
  const UpdatedOutput output{
      dx, dx_stride, shape.tokens, shape.in_features, keep_scale(shape), dropout_mask_stride(shape.in_features)};
  const auto used = std::span<const RankUpdate>(updates).first(projections.size());
  if (shape.dtype == DType::f32) return rank_update_plain(false, output, used, stream);
  rank_update(shape.dtype, wide, false, output, used, stream);
}

}  // namespace qshard::optimized
