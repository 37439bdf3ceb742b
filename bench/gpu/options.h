#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/gpu/problem.h"
#include "bench/shapes.h"

namespace qshard::bench {

/// Kernels of the training step other than linear layers; --operation takes these names too.
inline const std::vector<std::string> kStepKernels = {"embedding",
                                                      "rmsnorm",
                                                      "rmsnorm_backward",
                                                      "rope",
                                                      "swiglu",
                                                      "swiglu_backward",
                                                      "dropout",
                                                      "cross_entropy",
                                                      "sum_squares",
                                                      "adamw",
                                                      "adamw8bit",
                                                      "dropout_masks",
                                                      "lora_down",
                                                      "lora_up_add",
                                                      "lora_up_backward",
                                                      "lora_down_backward",
                                                      "lora_input_gradient",
                                                      "lora_layer",
                                                      "adapted_product",
                                                      "adapted_product_backward",
                                                      "attention",
                                                      "attention_backward"};

/// The axes of the table; a row for every combination that makes sense.
struct Options {
  std::vector<std::uint32_t> operations{QSHARD_DEQUANTIZE, QSHARD_QUANTIZE, QSHARD_LINEAR4BIT};
  std::vector<std::string> step_kernels;  // of kStepKernels, at the sizes of models; of the axes only dtypes is theirs
  std::vector<std::string> providers{"qshard", "bitsandbytes", "cublas"};
  std::vector<std::string> shapes{"28672x8192", "4096x4096"};
  std::vector<std::int64_t> blocksizes{64};
  std::vector<std::uint32_t> dtypes{QSHARD_BF16};
  std::vector<std::uint32_t> nested{1};
  std::vector<std::int64_t> rows{1, 16, 64, 2048};
  std::vector<std::uint32_t> quant_types{QSHARD_NF4};
  std::vector<std::string> plugins;  // paths; each adds a provider
  std::string bitsandbytes;          // path of its library; empty: looked for
  Manner manner;
  int repetitions = 10;
  double batch_seconds = 0.01;  // calls of one repetition take at least so long together
};

/// Parses the axes and leaves Google Benchmark's own arguments (--benchmark_...) in `arguments` after the program's
/// name. Returns nothing where help was asked for and printed. Throws Error(bad_input) for anything unknown.
std::optional<Options> parse_options(std::vector<std::string>& arguments);

/// Whether `name` is a provider of this project; others are plug-ins.
bool is_known_provider(const std::string& name);

/// The weight shapes that `word` names: "28672x8192", or a model of shapes.h ("llama-2-70b"), or "all". Throws
/// Error(bad_input) naming the word.
std::vector<LinearShape> parse_shape(const std::string& word);

/// Every combination of the axes, operation by operation; combinations that share a weight stand together.
std::vector<qshard_problem> problems_of(const Options& options);

}  // namespace qshard::bench
