#include "app/merge_check.h"

#include <algorithm>
#include <cmath>

#include "app/load_model.h"
#include "app/text_service.h"
#include "app/text_tokens.h"
#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/training/decoder.h"
#include "core/training/prepared_dataset.h"

namespace qshard {
namespace {

constexpr std::int64_t kMostRows = 16;
constexpr std::int64_t kMostTokens = 256;

RunConfig run_config(const MergeCheck& check, const std::string& model, bool in_4bit) {
  const QuantizationOptions& quantization = check.quantization;
  RunConfig config =
      parse_run_config("", "command line",
                       {{"model_name_or_path", model},
                        {"device", "cpu"},
                        {"dtype", "float32"},
                        {"quantization.load_in_4bit", in_4bit ? "true" : "false"},
                        {"quantization.bnb_4bit_compute_dtype", "float32"},
                        {"quantization.bnb_4bit_quant_type", std::string(to_string(quantization.quant_type))},
                        {"quantization.blocksize", std::to_string(quantization.blocksize)},
                        {"quantization.bnb_4bit_use_double_quant", quantization.double_quant ? "true" : "false"}});
  check_run_config(config);
  return config;
}

PreparedDataset read_rows(const MergeCheck& check, Progress& progress) {
  if (check.rows.ends_with(".safetensors")) return load_prepared_dataset(check.rows);
  const AtomicDirectory scratch(check.merged + ".check");  // gone with this object, or with the next run
  return load_prepared_dataset(
      TextTokens(check.model).prepare({check.rows}, DatasetConfig{}, scratch.path(), progress));
}

struct Change {
  double largest = 0;
  double sum = 0;
  double largest_logit = 0;
  std::int64_t values = 0;

  void add(const TokenLogits& trained, const TokenLogits& merged) {
    for (std::size_t i = 0; i < trained.values.size(); ++i) {
      const double difference = std::abs(static_cast<double>(trained.values[i]) - merged.values[i]);
      if (!(difference <= largest)) largest = difference;  // NaN stays
      largest_logit = std::max(largest_logit, std::abs(static_cast<double>(trained.values[i])));
      sum += difference;
    }
    values += std::ssize(trained.values);
  }
};

Change change_of(TrainingEngine& trained, TrainingEngine& merged, const CheckedRows& rows) {
  std::int64_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, std::ssize(row));
  const auto a = trained.make_decoder(1, longest);
  const auto b = merged.make_decoder(1, longest);
  Change change;
  for (const auto& row : rows) {
    const std::vector<std::int32_t> first{row.front()};
    change.add(a->start(std::span(&first, 1)), b->start(std::span(&first, 1)));
    for (const std::int32_t& token : std::span(row).subspan(1)) {
      change.add(a->next(std::span(&token, 1)), b->next(std::span(&token, 1)));
    }
  }
  return change;
}

}  // namespace

CheckedRows read_checked_rows(const MergeCheck& check, Progress& progress) {
  CheckedRows rows;
  if (check.rows.ends_with(".txt")) {
    PromptRequest request;
    request.file = check.rows;
    rows = TextService(check.model).encode(request).ids;
  } else {
    const PreparedDataset dataset = read_rows(check, progress);
    for (std::int64_t row = 0; row < std::min(dataset.rows(), kMostRows); ++row) {
      const auto begin = dataset.input_ids.begin() + dataset.offsets[static_cast<std::size_t>(row)];
      rows.emplace_back(begin, begin + dataset.row_tokens(row));
    }
  }
  if (std::ssize(rows) > kMostRows) rows.resize(kMostRows);
  for (auto& row : rows) {
    if (std::ssize(row) > kMostTokens) row.resize(kMostTokens);
  }
  std::erase_if(rows, [](const auto& row) { return row.empty(); });
  if (rows.empty()) fail_input("{}: holds no token to compare the logits at", check.rows);
  return rows;
}

void print_merge_check(const MergeCheck& check, const CheckedRows& rows, Progress& progress) {
  std::int64_t tokens = 0;
  for (const auto& row : rows) tokens += std::ssize(row);
  const LoadedModel merged = load_model(run_config(check, check.merged, false), "");
  const auto print = [&](bool in_4bit, const std::string& what) {
    progress.show("comparing logits");
    const LoadedModel trained = load_model(run_config(check, check.model, in_4bit), check.adapter);
    const Change change = change_of(*trained.engine, *merged.engine, rows);
    progress.print(fmt::format("Logits   against {} with the adapter: largest change {:.6g}, mean {:.6g}", what,
                               change.largest, change.sum / static_cast<double>(change.values)));
    return change.largest_logit;
  };
  double largest_logit = 0;
  if (HfCheckpoint::open(check.model).config().prequantized_4bit) {
    largest_logit = print(false, "the 4-bit weights, which training saw,");
  } else {
    print(false, "the stored weights");
    const QuantizationOptions& options = check.quantization;
    largest_logit = print(
        true, fmt::format("their 4-bit form ({}, block {}{}), which QLoRA training saw,", to_string(options.quant_type),
                          options.blocksize, options.double_quant ? ", double quantization" : ""));
  }
  progress.print(fmt::format("         over {} rows, {} tokens, in float32; the largest logit is {:.6g}", rows.size(),
                             tokens, largest_logit));
}

}  // namespace qshard
