#include "core/training/prepared_dataset.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/base/error.h"
#include "core/base/fnv_hash.h"
#include "core/formats/safetensors.h"

namespace qshard {
namespace {

template <typename T>
std::vector<T> read_column(const SafetensorsFile& file, std::string_view name, DType dtype) {
  const std::string where = fmt::format("{}: {}", file.path().string(), name);
  if (!file.contains(name)) {
    fail_input("{} is missing; a prepared data set holds input_ids, labels and offsets", where);
  }
  const TensorView tensor = file.tensor(name);
  if (tensor.dtype != dtype || tensor.shape.size() != 1) {
    fail_input("{} must be {} with one dimension, is {} {}", where, safetensors_name(dtype),
               safetensors_name(tensor.dtype), to_string(tensor.shape));
  }
  std::vector<T> values(tensor.bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

void check_offsets(const PreparedDataset& dataset, const std::string& file) {
  const auto& offsets = dataset.offsets;
  if (offsets.size() < 2) fail_input("{}: offsets describe no row", file);
  if (offsets.front() != 0) fail_input("{}: offsets[0] is {}, must be 0", file, offsets.front());
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    if (offsets[i] < offsets[i - 1]) fail_input("{}: offsets[{}] is below the one before it", file, i);
  }
  if (offsets.back() != dataset.tokens()) {
    fail_input("{}: offsets end at {}, but there are {} tokens", file, offsets.back(), dataset.tokens());
  }
}

}  // namespace

std::int64_t PreparedDataset::loss_tokens() const {
  std::int64_t count = 0;
  for (std::size_t row = 0; row + 1 < offsets.size(); ++row) {
    for (std::int64_t t = offsets[row] + 1; t < offsets[row + 1]; ++t) {
      if (labels[static_cast<std::size_t>(t)] != kIgnoredLabel) ++count;
    }
  }
  return count;
}

PreparedDataset load_prepared_dataset(const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  PreparedDataset dataset;
  dataset.input_ids = read_column<std::int32_t>(file, "input_ids", DType::i32);
  dataset.labels = read_column<std::int32_t>(file, "labels", DType::i32);
  dataset.offsets = read_column<std::int64_t>(file, "offsets", DType::i64);
  if (dataset.labels.size() != dataset.input_ids.size()) {
    fail_input("{}: {} labels for {} input_ids", path.string(), dataset.labels.size(), dataset.input_ids.size());
  }
  check_offsets(dataset, path.string());
  return dataset;
}

void check_vocabulary(const PreparedDataset& dataset, std::int64_t vocab_size, std::string_view where) {
  for (std::size_t row = 0; row + 1 < dataset.offsets.size(); ++row) {
    for (std::int64_t t = dataset.offsets[row]; t < dataset.offsets[row + 1]; ++t) {
      const std::int32_t id = dataset.input_ids[static_cast<std::size_t>(t)];
      const std::int32_t label = dataset.labels[static_cast<std::size_t>(t)];
      const bool bad_id = id < 0 || id >= vocab_size;
      if (!bad_id && (label == kIgnoredLabel || (label >= 0 && label < vocab_size))) continue;
      fail_input(
          "{}: {} {} at row {}, position {} is outside the model's vocabulary of {}; use the model's own tokenizer",
          where, bad_id ? "token" : "label", bad_id ? id : label, row, t - dataset.offsets[row], vocab_size);
    }
  }
}

RowLimits limit_rows(PreparedDataset& dataset, std::int64_t max_length) {
  RowLimits limits;
  PreparedDataset kept;
  for (std::size_t row = 0; row + 1 < dataset.offsets.size(); ++row) {
    const std::int64_t begin = dataset.offsets[row];
    const std::int64_t end = std::min(dataset.offsets[row + 1], begin + max_length);
    if (end < dataset.offsets[row + 1]) ++limits.truncated;
    const auto first = dataset.labels.begin() + std::min(begin + 1, end);
    const auto last = dataset.labels.begin() + end;
    if (std::all_of(first, last, [](std::int32_t label) { return label == kIgnoredLabel; })) {
      ++limits.without_label;
      continue;
    }
    kept.input_ids.insert(kept.input_ids.end(), dataset.input_ids.begin() + begin, dataset.input_ids.begin() + end);
    kept.labels.insert(kept.labels.end(), dataset.labels.begin() + begin, last);
    kept.offsets.push_back(kept.tokens());
  }
  dataset = std::move(kept);
  return limits;
}

TokenBatch make_batch(const PreparedDataset& dataset, std::span<const RowChoice> choices) {
  TokenBatch batch;
  for (const RowChoice& choice : choices) {
    const std::int64_t begin = dataset.offsets[static_cast<std::size_t>(choice.row)];
    const std::int64_t end = dataset.offsets[static_cast<std::size_t>(choice.row) + 1];
    batch.input_ids.insert(batch.input_ids.end(), dataset.input_ids.begin() + begin, dataset.input_ids.begin() + end);
    batch.labels.insert(batch.labels.end(), dataset.labels.begin() + begin, dataset.labels.begin() + end);
    batch.offsets.push_back(batch.tokens());
    batch.row_ids.push_back(choice.id);
  }
  return batch;
}

std::uint64_t fingerprint(const PreparedDataset& dataset) {
  std::uint64_t hash = fnv_hash(std::as_bytes(std::span(dataset.input_ids)));
  hash = fnv_hash(std::as_bytes(std::span(dataset.labels)), hash);
  return fnv_hash(std::as_bytes(std::span(dataset.offsets)), hash);
}

}  // namespace qshard
