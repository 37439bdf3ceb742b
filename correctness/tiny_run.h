#pragma once

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/formats/safetensors.h"
#include "core/training/prepared_dataset.h"

namespace qshard {

/// A prepared data set of random rows for the golden model (vocabulary of 512).
inline void write_random_dataset(const std::filesystem::path& path, std::int64_t rows, unsigned seed) {
  std::mt19937 generator(seed);
  Tensor offsets(DType::i64, {rows + 1});
  std::vector<std::int32_t> ids;
  for (std::int64_t row = 1; row <= rows; ++row) {
    const std::size_t tokens = 4 + generator() % 9;
    for (std::size_t t = 0; t < tokens; ++t) ids.push_back(static_cast<std::int32_t>(generator() % 512));
    offsets.as<std::int64_t>()[static_cast<std::size_t>(row)] = static_cast<std::int64_t>(ids.size());
  }
  const TensorView column{DType::i32, {static_cast<std::int64_t>(ids.size())}, std::as_bytes(std::span(ids))};
  write_safetensors(path, {{"input_ids", column}, {"labels", column}, {"offsets", offsets.view()}});
}

/// Arguments of a small training run on the golden model, with a checkpoint at every step.
inline std::vector<std::string> tiny_run_arguments(const std::filesystem::path& config,
                                                   const std::filesystem::path& data,
                                                   const std::filesystem::path& output, std::int64_t steps) {
  return {"train",
          config.string(),
          "--model_name_or_path",
          std::string(QSHARD_GOLDEN_DIR) + "/llama/base",
          "--dataset.path",
          data.string(),
          "--dataset.eval_path",
          data.string(),
          "--training.output_dir",
          output.string(),
          "--training.max_steps",
          std::to_string(steps),
          "--training.save_steps",
          "1",
          "--training.save_total_limit",
          "3",
          "--training.per_device_train_batch_size",
          "2",
          "--training.learning_rate",
          "1e-3",
          "--lora.lora_dropout",
          "0.1",
          "--fsdp.world_size",
          "2"};
}

/// The rows of metrics.jsonl, without its context and without what a clock decides.
inline std::vector<Json> timeless_metrics(const std::filesystem::path& path) {
  std::vector<Json> rows;
  const std::string text = read_file(path);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    rows.push_back(Json::parse(text.substr(begin, end - begin)));
    for (const auto* key : {"step_seconds", "tokens_per_second", "eval_seconds", "peak_memory_bytes"}) {
      rows.back().erase(key);
    }
    if (rows.back().contains("context")) rows.pop_back();
    begin = end == std::string::npos ? text.size() : end + 1;
  }
  return rows;
}

/// The context that metrics.jsonl begins with.
inline Json metrics_context(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  return Json::parse(text.substr(0, text.find('\n'))).at("context");
}

}  // namespace qshard
