#include "optimized/llama_layer/layer_masks.h"

#include <vector>

#include "optimized/dropout_masks.h"

namespace qshard::optimized {

namespace {

bool drops(const LayerPass& pass) {
  return pass.context.lora_dropout > 0;
}

/// Bytes of the masks of the first `projections`: where the next one's lies in the piece of all masks.
std::int64_t mask_bytes(const LayerPass& pass, std::size_t projections) {
  return pass.size_of_first(projections,
                            [](const LinearPointers& linear) { return dropout_mask_stride(linear.weight.in); });
}

}  // namespace

void make_layer_masks(const LayerPass& pass) {
  if (!drops(pass) || !pass.kept.masks.empty()) return;
  pass.kept.masks = pass.resources.arena->take(mask_bytes(pass, kProjections), "dropout masks");
  std::vector<DropoutMaskBits> masks;
  for (std::size_t index = 0; index < kProjections; ++index) {
    const LinearPointers& linear = pass.weights.projections[index];
    if (linear.lora.rank == 0) continue;
    auto* bits = pass.resources.dry_run() ? nullptr : pass.kept.masks.as<std::uint8_t>() + mask_bytes(pass, index);
    masks.push_back({static_cast<std::uint32_t>(index), linear.weight.in, bits});
  }
  const LayerContext& context = pass.context;
  const DropoutMask common{context.dropout_seed, context.step, static_cast<std::uint32_t>(context.layer), 0,
                           context.lora_dropout};
  pass.resources.launch([&] { dropout_masks(common, *context.rows, masks, pass.resources.stream); });
}

const std::uint8_t* layer_mask(const LayerPass& pass, Projection role, std::int64_t first) {
  if (!drops(pass) || pass.resources.dry_run()) return nullptr;
  return pass.kept.masks.as<std::uint8_t>() + mask_bytes(pass, static_cast<std::size_t>(role)) +
         first * dropout_mask_stride(pass.linear(role).weight.in);
}

}  // namespace qshard::optimized
