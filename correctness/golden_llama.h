#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include <nlohmann/json.hpp>

#include "core/formats/safetensors.h"
#include "core/run/engine_options.h"
#include "core/training/training_engine.h"

namespace qshard {

/// The two-layer Llama of correctness/golden/llama and what PyTorch, PEFT and bitsandbytes made of it.
inline std::filesystem::path golden_llama() {
  return std::filesystem::path(QSHARD_GOLDEN_DIR) / "llama";
}

/// All tensors of a safetensors file.
inline NamedTensors read_named_tensors(const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  NamedTensors tensors;
  for (const std::string& name : file.names()) tensors[name] = Tensor(file.tensor(name));
  return tensors;
}

/// The golden run's one batch, 4 rows of 64 tokens (48 for the families), cut into `parts` batches of consecutive rows.
inline std::vector<TokenBatch> golden_batches(std::size_t parts, const std::filesystem::path& of = golden_llama()) {
  const NamedTensors tensors = read_named_tensors(of / "trajectory.safetensors");
  const auto ids = tensors.at("input_ids").as<std::int32_t>();
  const auto labels = tensors.at("labels").as<std::int32_t>();
  const std::size_t rows = 4;
  const std::size_t length = ids.size() / rows;
  std::vector<TokenBatch> batches(parts);
  for (std::size_t row = 0; row < rows; ++row) {
    TokenBatch& batch = batches[row * parts / rows];
    const auto begin = static_cast<std::ptrdiff_t>(row * length);
    const auto end = begin + static_cast<std::ptrdiff_t>(length);
    batch.input_ids.insert(batch.input_ids.end(), ids.begin() + begin, ids.begin() + end);
    batch.labels.insert(batch.labels.end(), labels.begin() + begin, labels.begin() + end);
    batch.offsets.push_back(batch.tokens());
    batch.row_ids.push_back(row);
  }
  return batches;
}

/// The golden run's settings; `dtype` f32 or bf16 for everything that is not 4-bit.
inline EngineOptions golden_options(DType dtype) {
  EngineOptions options;
  options.lora.r = 8;
  options.lora.alpha = 16;
  options.max_grad_norm = 0.3;
  options.dtype = dtype;
  options.compute_dtype = dtype;
  return options;
}

inline constexpr double kGoldenLearningRate = 1e-3;

/// "fp32" or "bf16" run of trajectory.json.
inline nlohmann::json golden_run(const std::string& name, const std::filesystem::path& of = golden_llama()) {
  std::ifstream stream(of / "trajectory.json");
  return nlohmann::json::parse(stream).at("runs").at(name);
}

}  // namespace qshard
