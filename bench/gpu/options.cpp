#include "bench/gpu/options.h"

#include <algorithm>
#include <charconv>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include "core/error.h"
#include "core/weight4bit.h"

namespace qshard::bench {
namespace {

const std::vector<std::pair<std::string, std::uint32_t>> kOperations = {{"dequantize", QSHARD_DEQUANTIZE},
                                                                        {"quantize", QSHARD_QUANTIZE},
                                                                        {"linear4bit", QSHARD_LINEAR4BIT},
                                                                        {"linear4bit_backward", QSHARD_LINEAR4BIT_BACKWARD}};
const std::vector<std::pair<std::string, DType>> kDTypes = {
    {"bf16", DType::bf16}, {"f16", DType::f16}, {"f32", DType::f32}};
const std::vector<std::pair<std::string, QuantType>> kQuantTypes = {{"nf4", QuantType::nf4}, {"fp4", QuantType::fp4}};

void add_axes(CLI::App& app, Options& options) {
  app.add_option("--operation", options.operations, "dequantize, quantize, linear4bit, linear4bit_backward")
      ->delimiter(',')
      ->transform(CLI::CheckedTransformer(kOperations));
  app.add_option("--provider", options.providers,
                 "qshard, reference (CPU), bitsandbytes, cublas (dense), ladder (the teaching steps)")
      ->delimiter(',')
      ->check(CLI::IsMember({"qshard", "reference", "bitsandbytes", "cublas", "ladder"}));
  app.add_option("--plugin", options.plugins, "shared library with a provider of your own (providers/qshard_provider.h)")
      ->check(CLI::ExistingFile);
  app.add_option("--shape", options.shapes, "NxK, a model (llama-2-7b, llama-2-13b, llama-2-70b, llama-3-8b) or all")
      ->delimiter(',');
  app.add_option("--blocksize", options.blocksizes, "elements that share a scale")->delimiter(',');
  app.add_option("--dtype", options.dtypes, "bf16, f16, f32")
      ->delimiter(',')
      ->transform(CLI::CheckedTransformer(kDTypes));
  app.add_option("--quant-type", options.quant_types, "nf4, fp4")
      ->delimiter(',')
      ->transform(CLI::CheckedTransformer(kQuantTypes));
  app.add_option("--nested", options.nested, "0, 1: absmax quantized to 8 bits")
      ->delimiter(',')
      ->check(CLI::Range(0, 1));
  app.add_option("--rows", options.rows, "rows of activations in a linear layer")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20));
  app.add_flag("--warm", options.warm, "one set of buffers, so that what fits stays in the L2 cache");
  app.add_option("--bitsandbytes", options.bitsandbytes,
                 "its shared library; default: $QSHARD_BITSANDBYTES_LIBRARY, or python3's package")
      ->check(CLI::ExistingFile);
  app.add_option("--repetitions", options.repetitions, "measurements kept for each row")->check(CLI::Range(1, 10000));
  app.add_option("--batch-seconds", options.batch_seconds, "least time of the calls of one repetition")
      ->check(CLI::Range(1e-4, 60.0));
}

std::int64_t parse_number(std::string_view text, const std::string& word) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > (1 << 24)) {
    fail_input("--shape {}: expected NxK with whole numbers from 1 to {}, a model's name or all", word, 1 << 24);
  }
  return value;
}

void check_blocksizes(const Options& options) {
  for (const std::int64_t blocksize : options.blocksizes) {
    if (!is_supported_blocksize(blocksize)) {
      fail_input("--blocksize {}: supported are 32, 64, 128, 256, 512, 1024, 2048 and 4096", blocksize);
    }
  }
}

}  // namespace

std::optional<Options> parse_options(std::vector<std::string>& arguments) {
  Options options;
  CLI::App app("Times 4-bit kernels on this GPU beside their peers and the hardware's limits, every row checked before "
               "and after. Arguments --benchmark_... go to Google Benchmark (--benchmark_out=FILE, "
               "--benchmark_filter=REGEX, --benchmark_list_tests).",
               "qshard bench");
  app.option_defaults()->always_capture_default();
  app.allow_extras();
  add_axes(app, options);
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend() - 1);
  try {
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    fail_input("{} (see --help)", error.what());
  }
  arguments.resize(1);
  for (const std::string& extra : app.remaining()) {
    if (!extra.starts_with("--benchmark_") && !extra.starts_with("--v=")) {
      fail_input("unknown argument {} (see --help)", extra);
    }
    arguments.push_back(extra);
  }
  check_blocksizes(options);
  for (const std::string& shape : options.shapes) parse_shape(shape);
  return options;
}

std::vector<LinearShape> parse_shape(const std::string& word) {
  std::vector<LinearShape> shapes;
  for (const ModelShapes& model : kModelShapes) {
    if (word == "all" || word == model.model) shapes.insert(shapes.end(), model.layers.begin(), model.layers.end());
  }
  if (!shapes.empty()) return shapes;
  const std::size_t cross = std::min(word.find('x'), word.size());
  const std::string_view view(word);
  return {{parse_number(view.substr(0, cross), word), parse_number(view.substr(std::min(cross + 1, word.size())), word)}};
}

std::vector<qshard_problem> problems_of(const Options& options) {
  std::vector<LinearShape> shapes;
  for (const std::string& word : options.shapes) {
    for (const LinearShape& shape : parse_shape(word)) {
      const bool known = std::any_of(shapes.begin(), shapes.end(),
                                     [&](const LinearShape& other) { return other.n == shape.n && other.k == shape.k; });
      if (!known) shapes.push_back(shape);
    }
  }
  std::vector<qshard_problem> problems;
  qshard_problem problem{};
  const auto add_rows = [&] {
    for (problem.operation = 0; problem.operation <= QSHARD_LINEAR4BIT_BACKWARD; ++problem.operation) {
      const auto& wanted = options.operations;
      if (std::find(wanted.begin(), wanted.end(), problem.operation) == wanted.end()) continue;
      for (problem.nested = 0; problem.nested <= 1; ++problem.nested) {
        if (std::find(options.nested.begin(), options.nested.end(), problem.nested) == options.nested.end()) continue;
        for (const std::int64_t rows : is_linear(problem) ? options.rows : std::vector<std::int64_t>{0}) {
          problem.rows = rows;
          problems.push_back(problem);
        }
      }
    }
  };
  for (const LinearShape& shape : shapes) {
    for (const DType dtype : options.dtypes) {
      for (const QuantType quant_type : options.quant_types) {
        for (const std::int64_t blocksize : options.blocksizes) {
          problem.n = shape.n;
          problem.k = shape.k;
          problem.dtype = provider_dtype(dtype);
          problem.quant_type = quant_type == QuantType::nf4 ? QSHARD_NF4 : QSHARD_FP4;
          problem.blocksize = blocksize;
          add_rows();
        }
      }
    }
  }
  return problems;
}

}  // namespace qshard::bench
