// Holds the tables of core/formats/README.md to what is done: no documented key is merely ignored.
#include <algorithm>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/formats/adapter_config.h"
#include "core/formats/hf_config.h"

namespace qshard {
namespace {

struct Row {
  std::string key;
  std::string verdict;
  std::string third;  // why, or which model_type
  Json value;
};

std::string trimmed(const std::string& cell) {
  const std::size_t first = cell.find_first_not_of(' ');
  return first == std::string::npos ? "" : cell.substr(first, cell.find_last_not_of(' ') - first + 1);
}

std::string in_ticks(const std::string& cell) {
  const std::size_t first = cell.find('`');
  return cell.substr(first + 1, cell.rfind('`') - first - 1);
}

/// The rows of the table under a heading.
std::vector<Row> rows_of(const std::string& heading) {
  std::istringstream text(read_file(std::string(QSHARD_SOURCE_DIR) + "/core/formats/README.md"));
  std::vector<Row> rows;
  bool inside = false;
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("## ")) inside = line.starts_with("## " + heading);
    if (!inside || !line.starts_with("| `")) continue;
    std::istringstream cells(line.substr(1));
    std::vector<std::string> found;
    for (std::string cell; std::getline(cells, cell, '|');) found.push_back(trimmed(cell));
    EXPECT_EQ(found.size(), 4U) << line;
    rows.push_back({in_ticks(found[0]), found[1], found[2], Json::parse(in_ticks(found[3]))});
  }
  EXPECT_FALSE(rows.empty()) << heading;
  return rows;
}

/// Everything that a configuration is read as, or "refused: " and the message.
template <typename Read>
std::string result_of(const Read& read) {
  try {
    return read();
  } catch (const Error& error) {
    return std::string("refused: ") + error.what();
  }
}

std::string read_model(const Json& json) {
  return result_of([&] {
    const ModelConfig c = parse_hf_config(json.dump(), "config.json");
    const RopeConfig& r = c.rope;
    std::vector<std::int64_t> windows;
    for (std::int64_t layer = 0; layer < c.num_hidden_layers; ++layer) windows.push_back(c.window(layer));
    return fmt::format("{} {} {} {} {} {} {} {} {} {} ", to_string(c.family), c.hidden_size, c.intermediate_size,
                       c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.vocab_size,
                       c.max_position_embeddings, c.rms_norm_eps) +
           fmt::format("{} {} {} {} ", static_cast<int>(r.type), r.theta, r.factor, fmt::join(windows, ",")) +
           fmt::format("{} {} {} {} {} ", c.qkv_bias, c.o_bias, c.mlp_bias, c.qk_norm, c.tie_word_embeddings) +
           fmt::format("{} {} {} {} {}", c.bos_token_id.value_or(-1), fmt::join(c.eos_token_ids, ","),
                       c.pad_token_id.value_or(-1), c.dtype ? torch_name(*c.dtype) : "", c.prequantized_4bit);
  });
}

std::string read_lora(const Json& json) {
  return result_of([&] { return adapter_config_text(parse_adapter_config(json.dump(), "adapter_config.json")); });
}

void expect_verdict(const Row& row, const std::string& before, const std::string& after) {
  SCOPED_TRACE(fmt::format("{}: {}", row.key, row.value.dump()));
  const bool refused = after.starts_with("refused: ");
  ASSERT_FALSE(before.starts_with("refused: ")) << before;
  EXPECT_TRUE(!refused || after.find(row.key) != std::string::npos) << after;
  if (row.verdict == "used") {
    EXPECT_NE(after, before);
  } else if (row.verdict == "refused") {
    EXPECT_TRUE(refused) << after;
  } else {
    EXPECT_EQ(row.verdict, "no effect");
    EXPECT_EQ(after, before);
  }
}

Json small_model(const std::string& model_type) {
  return {{"model_type", model_type}, {"hidden_size", 64},        {"intermediate_size", 96}, {"num_hidden_layers", 2},
          {"vocab_size", 100},        {"num_attention_heads", 4}, {"num_key_value_heads", 4}};
}

TEST(ConfigKeys, OfModels) {
  for (const Row& row : rows_of("config.json: LlamaConfig")) {
    Json json = small_model("llama");
    const std::string before = read_model(json);
    json[row.key] = row.value;
    expect_verdict(row, before, read_model(json));
  }
}

TEST(ConfigKeys, OfFamilies) {
  for (const Row& row : rows_of("config.json of Mistral")) {
    Json json = small_model(in_ticks(row.third));
    if (row.third.ends_with("use_sliding_window")) json["use_sliding_window"] = true;
    if (row.key != "max_window_layers") json["max_window_layers"] = 0;
    const std::string before = read_model(json);
    json[row.key] = row.value;
    expect_verdict(row, before, read_model(json));
  }
}

TEST(ConfigKeys, OfQuantization) {
  for (const Row& row : rows_of("quantization_config")) {
    Json json = small_model("llama");
    json["quantization_config"] = {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}};
    const std::string before = read_model(json);
    json["quantization_config"][row.key] = row.value;
    expect_verdict(row, before, read_model(json));
  }
}

TEST(ConfigKeys, OfAdapters) {
  for (const Row& row : rows_of("adapter_config.json")) {
    Json json = {{"peft_type", "LORA"}, {"target_modules", {"q_proj"}}};
    if (row.key == "layers_pattern") json["layers_to_transform"] = {0};
    const std::string before = read_lora(json);
    json[row.key] = row.value;
    expect_verdict(row, before, read_lora(json));
  }
}

// The text that is written holds every key of PEFT's LoraConfig.
TEST(ConfigKeys, TheTableOfAdaptersIsWhole) {
  std::vector<std::string> known{"peft_type"};
  for (const Row& row : rows_of("adapter_config.json")) known.push_back(row.key);
  AdapterConfig config;
  config.target_modules = {"q_proj"};
  const Json written = Json::parse(adapter_config_text(config));
  for (const auto& item : written.items()) {
    EXPECT_NE(std::ranges::find(known, item.key()), known.end()) << item.key() << " is not in the table";
  }
}

}  // namespace
}  // namespace qshard
