#include "bench/gpu/options.h"

#include <algorithm>
#include <array>
#include <charconv>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "core/base/error.h"
#include "core/base/nearest_name.h"
#include "core/tensor/weight4bit.h"

namespace qshard::bench {
namespace {

const std::vector<std::string> kOperations = {"dequantize", "quantize", "linear4bit", "linear4bit_backward"};
constexpr std::array<std::string_view, 6> kProviders = {"qshard",       "qshard_portable", "reference",
                                                        "bitsandbytes", "cublas",          "ladder"};
const std::vector<std::string> kDTypes = {"f32", "f16", "bf16"};
const std::vector<std::string> kQuantTypes = {"nf4", "fp4"};

/// The plug-in interface's numbers are places in these lists.
std::vector<std::uint32_t> places(const std::vector<std::string>& words, const std::vector<std::string>& list) {
  std::vector<std::uint32_t> result;
  result.reserve(words.size());
  for (const std::string& word : words) {
    result.push_back(static_cast<std::uint32_t>(std::find(list.begin(), list.end(), word) - list.begin()));
  }
  return result;
}

std::vector<std::string> all_operations() {
  std::vector<std::string> all = kOperations;
  all.insert(all.end(), kStepKernels.begin(), kStepKernels.end());
  return all;
}

bool is_step_kernel(const std::string& operation) {
  return std::find(kStepKernels.begin(), kStepKernels.end(), operation) != kStepKernels.end();
}

/// The axes as they stand on the command line.
struct Words {
  std::vector<std::string> operations{"dequantize", "quantize", "linear4bit"};
  std::vector<std::string> dtypes{"bf16"};
  std::vector<std::string> quant_types{"nf4"};
};

std::vector<std::string_view> model_names() {
  std::vector<std::string_view> names;
  for (const ModelShapes& model : kModelShapes) names.push_back(model.model);
  return names;
}

void add_axes(CLI::App& app, Options& options, Words& words) {
  const auto list = [&app](const std::string& name, auto& values, const std::string& help) {
    return app.add_option(name, values, help)->delimiter(',');
  };
  list("--operation", words.operations, "what is timed: products and quantization, or kernels of the step")
      ->check(CLI::IsMember(all_operations()));
  list("--provider", options.providers,
       "qshard, qshard_portable (its kernels for GPUs without Hopper's matrix instructions), reference (the CPU's), "
       "bitsandbytes, cublas (dense), ladder (the teaching steps), or a plug-in's name");
  list("--plugin", options.plugins, "shared library with a provider of your own (bench/providers/qshard_provider.h)")
      ->check(CLI::ExistingFile);
  list("--shape", options.shapes, fmt::format("NxK, a model ({}) or all", fmt::join(model_names(), ", ")));
  list("--blocksize", options.blocksizes, "elements that share a scale");
  list("--dtype", words.dtypes, "of weight and activations")->check(CLI::IsMember(kDTypes));
  list("--quant-type", words.quant_types, "codebook")->check(CLI::IsMember(kQuantTypes));
  list("--nested", options.nested, "1: absmax quantized to 8 bits")->check(CLI::Range(0, 1));
  list("--rows", options.rows, "rows of activations in a linear layer")->check(CLI::Range(1, 1 << 20));
  app.add_flag("--warm", options.manner.warm, "one set of buffers, so that what fits stays in the L2 cache");
  app.add_option(
         "--sustained", options.manner.sustained_seconds,
         "seconds for which the calls of a repetition go on before they are timed, and again while they are: at "
         "the clock that the power limit leaves for long work, with joules a call; 0: one short batch")
      ->check(CLI::Range(0, 600));
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

/// Everything that CLI11 cannot judge.
void check_values(const Options& options) {
  for (const std::int64_t blocksize : options.blocksizes) {
    if (!is_supported_blocksize(blocksize)) {
      fail_input("--blocksize {}: supported are 32, 64, 128, 256, 512, 1024, 2048 and 4096", blocksize);
    }
  }
  for (const std::string& shape : options.shapes) parse_shape(shape);
  for (const std::string& name : options.providers) {
    if (is_known_provider(name) || !options.plugins.empty()) continue;
    const std::string_view near = nearest_name(name, kProviders);
    fail_input("--provider {}: not known{}; a name of your own comes with --plugin FILE", name,
               near.empty() ? "" : fmt::format(", did you mean {}?", near));
  }
}

}  // namespace

std::optional<Options> parse_options(std::vector<std::string>& arguments) {
  Options options;
  Words words;
  CLI::App app(
      "Times 4-bit kernels on this GPU beside their peers and the hardware's limits, every row checked before "
      "and after. Arguments --benchmark_... go to Google Benchmark (--benchmark_out=FILE, "
      "--benchmark_filter=REGEX, --benchmark_list_tests).",
      "qshard bench");
  app.option_defaults()->always_capture_default();
  app.allow_extras();
  add_axes(app, options, words);
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
  std::ranges::copy_if(words.operations, std::back_inserter(options.step_kernels), is_step_kernel);
  std::erase_if(words.operations, is_step_kernel);
  options.operations = places(words.operations, kOperations);
  options.dtypes = places(words.dtypes, kDTypes);
  options.quant_types = places(words.quant_types, kQuantTypes);
  check_values(options);
  return options;
}

bool is_known_provider(const std::string& name) {
  return std::find(kProviders.begin(), kProviders.end(), name) != kProviders.end();
}

std::vector<LinearShape> parse_shape(const std::string& word) {
  std::vector<LinearShape> shapes;
  for (const ModelShapes& model : kModelShapes) {
    if (word == "all" || word == model.model) shapes.insert(shapes.end(), model.layers.begin(), model.layers.end());
  }
  if (!shapes.empty()) return shapes;
  const std::size_t cross = std::min(word.find('x'), word.size());
  const std::string_view view(word);
  return {
      {parse_number(view.substr(0, cross), word), parse_number(view.substr(std::min(cross + 1, word.size())), word)}};
}

std::vector<qshard_problem> problems_of(const Options& options) {
  std::vector<LinearShape> shapes;
  for (const std::string& word : options.shapes) {
    for (const LinearShape& shape : parse_shape(word)) {
      const bool known = std::any_of(shapes.begin(), shapes.end(), [&](const LinearShape& other) {
        return other.n == shape.n && other.k == shape.k;
      });
      if (!known) shapes.push_back(shape);
    }
  }
  std::vector<qshard_problem> problems;
  const auto has = [](const std::vector<std::uint32_t>& values, std::uint32_t value) {
    return std::find(values.begin(), values.end(), value) != values.end();
  };
  const auto add_rows = [&](qshard_problem problem) {
    for (problem.operation = 0; problem.operation <= QSHARD_LINEAR4BIT_BACKWARD; ++problem.operation) {
      for (problem.nested = 0; problem.nested <= 1; ++problem.nested) {
        if (!has(options.operations, problem.operation) || !has(options.nested, problem.nested)) continue;
        for (const std::int64_t rows : is_linear(problem) ? options.rows : std::vector<std::int64_t>{0}) {
          problem.rows = rows;
          problems.push_back(problem);
        }
      }
    }
  };
  for (const LinearShape& shape : shapes) {
    for (const std::uint32_t dtype : options.dtypes) {
      for (const std::uint32_t quant_type : options.quant_types) {
        for (const std::int64_t blocksize : options.blocksizes) {
          add_rows({0, dtype, quant_type, 0, shape.n, shape.k, 0, blocksize});
        }
      }
    }
  }
  return problems;
}

}  // namespace qshard::bench
