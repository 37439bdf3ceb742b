#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/run/adamw_options.h"
#include "core/sharding/shard_layout.h"
#include "core/tensor/tensor.h"

namespace qshard {

/// One of the arrays that AdamW's moments are kept in: a value for each `elements_per_value` consecutive elements of a
/// parameter.
struct MomentArray {
  std::string_view suffix;  // of its tensor's name, after the parameter's: ".exp_avg"
  DType dtype = DType::f32;
  std::int64_t elements_per_value = 1;  // 1 or kMomentBlocksize
};

/// exp_avg and exp_avg_sq; with 8-bit moments the codes of each, followed by its absmax.
std::vector<MomentArray> moment_arrays(MomentFormat format, DType lora_dtype);

/// "8-bit" for codes, else the dtype's name: what messages and checkpoints call a moment_dtype().
std::string_view moment_kind(DType moment);

/// The shape of a whole array for one parameter: the parameter's, or one dimension of its blocks.
Shape moment_shape(const MomentArray& array, const Shape& parameter);

/// Bytes of an array for `elements` elements, a multiple of kMomentBlocksize, such as those of a trainable shard.
std::int64_t moment_bytes(const MomentArray& array, std::int64_t elements);

/// The pieces, in bytes, of the array of a trainable flat's slot in the array's shards.
std::vector<ShardPiece> moment_pieces(const MomentArray& array, const Flat& flat, const Slot& slot);

/// A parameter's array out of an optimizer's state. Throws Error(bad_input), naming it, where it is missing or of
/// another shape; naming both kinds of moments where the state's are of another kind than the run's `array`.
const Tensor& named_moment(const NamedTensors& state, const std::string& parameter, const MomentArray& array,
                           const Shape& shape);

}  // namespace qshard
