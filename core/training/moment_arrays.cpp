#include "core/training/moment_arrays.h"

#include "core/base/error.h"

namespace qshard {
namespace {

static_assert(kTrainableAlignment % kMomentBlocksize == 0, "a block's elements must lie in one shard");

// exp_avg is there in every format; its dtype tells the format.
void check_kind(const NamedTensors& state, const std::string& parameter, DType wanted) {
  const auto found = state.find(parameter + ".exp_avg");
  if (found == state.end() || found->second.dtype() == wanted) return;
  fail_input(
      "the checkpoint's optimizer state has {} moments, but this run keeps {} ones; set training.optim and "
      "training.optim_moments_dtype as the run had them that wrote it, or start anew from its adapter",
      moment_kind(found->second.dtype()), moment_kind(wanted));
}

}  // namespace

std::string_view moment_kind(DType moment) {
  return moment == DType::u8 ? "8-bit" : torch_name(moment);
}

std::vector<MomentArray> moment_arrays(MomentFormat format, DType lora_dtype) {
  const DType dtype = moment_dtype(format, lora_dtype);
  if (format != MomentFormat::blockwise_8bit) return {{".exp_avg", dtype, 1}, {".exp_avg_sq", dtype, 1}};
  return {{".exp_avg", dtype, 1},
          {".exp_avg.absmax", DType::f32, kMomentBlocksize},
          {".exp_avg_sq", dtype, 1},
          {".exp_avg_sq.absmax", DType::f32, kMomentBlocksize}};
}

Shape moment_shape(const MomentArray& array, const Shape& parameter) {
  if (array.elements_per_value == 1) return parameter;
  return {(element_count(parameter) + array.elements_per_value - 1) / array.elements_per_value};
}

std::int64_t moment_bytes(const MomentArray& array, std::int64_t elements) {
  return elements / array.elements_per_value * static_cast<std::int64_t>(size_of(array.dtype));
}

std::vector<ShardPiece> moment_pieces(const MomentArray& array, const Flat& flat, const Slot& slot) {
  const auto stored = static_cast<std::int64_t>(size_of(flat.dtype));
  const std::int64_t values = element_count(moment_shape(array, slot.parameter.shape));
  return cut_into_pieces(moment_bytes(array, slot.offset / stored),
                         values * static_cast<std::int64_t>(size_of(array.dtype)),
                         moment_bytes(array, flat.shard_bytes / stored));
}

const Tensor& named_moment(const NamedTensors& state, const std::string& parameter, const MomentArray& array,
                           const Shape& shape) {
  if (array.suffix == ".exp_avg") check_kind(state, parameter, array.dtype);
  const std::string name = parameter + std::string(array.suffix);
  const auto found = state.find(name);
  if (found == state.end()) fail_input("tensor {} is missing; the model's adapter needs it", name);
  const Shape wanted = moment_shape(array, shape);
  if (found->second.shape() != wanted || found->second.dtype() != array.dtype) {
    fail_input("tensor {} is {} {}, but the model's adapter needs {} {}; check r and target_modules", name,
               torch_name(found->second.dtype()), to_string(found->second.shape()), torch_name(array.dtype),
               to_string(wanted));
  }
  return found->second;
}

}  // namespace qshard
