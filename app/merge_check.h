#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "core/model/quantization_options.h"

namespace qshard {

/// How far the logits of a merged model are from those of its base with the adapter.
struct MergeCheck {
  std::string model;
  std::string adapter;
  std::string merged;
  std::string rows;                    // .txt: a text a line; else rows of any format that training takes
  QuantizationOptions quantization{};  // the 4-bit form that training gave a 16-bit model
};

/// Token ids, a vector a row.
using CheckedRows = std::vector<std::vector<std::int32_t>>;

/// At most 16 rows of 256 tokens; the merged model need not be there yet. Throws Error(bad_input).
CheckedRows read_checked_rows(const MergeCheck& check, Progress& progress);

/// Prints the largest and the mean change of the logits at every token of the rows, against the model's weights as they
/// are stored and, for a 16-bit model, against its 4-bit weights, each with the adapter. All of it is computed in
/// float32 on the CPU, so that what is seen is the weights' rounding alone. Two models are in memory at a time. Throws
/// Error(bad_input).
void print_merge_check(const MergeCheck& check, const CheckedRows& rows, Progress& progress);

}  // namespace qshard
