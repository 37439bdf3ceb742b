// The table of published speeds beside predicted ones: every prediction in it is worked out again from its own row.
#include <filesystem>
#include <sstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "bench/model_shape.h"
#include "core/base/file.h"
#include "core/formats/bnb_checkpoint.h"
#include "core/formats/hf_config.h"
#include "core/sharding/step_advice.h"

namespace qshard {
namespace {

enum Column : std::uint8_t {
  publisher,
  model,
  gpu,
  link,
  ranks,
  batch,
  rank_r,
  options,
  published,
  predicted,
  ratio,
  otherwise,
  columns
};

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  std::istringstream text(line.substr(1));
  for (std::string cell; std::getline(text, cell, '|');) {
    const auto begin = cell.find_first_not_of(' ');
    cells.push_back(begin == std::string::npos ? "" : cell.substr(begin, cell.find_last_not_of(' ') + 1 - begin));
  }
  return cells;
}

std::vector<std::vector<std::string>> table_rows() {
  std::istringstream text(read_file(std::string(QSHARD_SOURCE_DIR) + "/reports/results/plans/published.md"));
  std::vector<std::vector<std::string>> rows;
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("|") && !line.starts_with("|---")) rows.push_back(cells_of(line));
  }
  rows.erase(rows.begin());  // the heads
  return rows;
}

ModelConfig model_of(const std::string& name) {
  const std::filesystem::path file = std::string(QSHARD_SOURCE_DIR) + "/examples/" + name + "/config.json";
  return std::filesystem::exists(file) ? read_hf_config(file) : bench::model_shape(name, 0);
}

StepTime predict(const std::vector<std::string>& row) {
  StepWork work;
  work.model = model_of(row[model]);
  work.lora.r = std::stoi(row[rank_r]);
  work.lora.dropout = 0.1;
  if (row[options] == "attention alone") work.lora.target_modules = {"q_proj", "k_proj", "v_proj", "o_proj"};
  work.sharding = row[options] == "no shard" ? ShardingStrategy::no_shard : ShardingStrategy::full_shard;
  work.ranks = std::stoll(row[ranks]);
  const auto stages = list_model_stages(work.model, work.quantization, work.lora, DType::bf16,
                                        [](const auto&, const auto&) { return std::nullopt; });
  work.stages = list_stage_work(plan_shards(stages, static_cast<int>(work.ranks), work.sharding));
  const std::int64_t rows = std::stoll(row[batch]);
  const std::int64_t length = std::stoll(row[batch].substr(row[batch].find('x') + 1));
  work.batch = {rows * length, rows, length};
  work.micro_batches = row[options].ends_with("micro-batches") ? std::stoll(row[options]) : 1;
  work.offload = row[options] == "offload";
  return predict_step(work, device_numbers(row[gpu], row[link]));
}

TEST(PublishedSteps, EveryPredictionOfTheTableIsTheProgramsOwn) {
  const auto rows = table_rows();
  ASSERT_GE(rows.size(), 20U);
  for (const auto& row : rows) {
    ASSERT_EQ(row.size(), columns) << row[publisher];
    EXPECT_TRUE(row[options].empty() || row[options] == "offload" || row[options] == "no shard" ||
                row[options] == "attention alone" || row[options].ends_with(" micro-batches"))
        << row[options];
    const double speed = predict(row).tokens_per_second;
    const double times = speed / std::stod(row[published]);
    const std::string name = fmt::format("{} {} on {} x {}", row[publisher], row[model], row[ranks], row[gpu]);
    // Half of the last digit, and a little: sums may differ in their last bits between compilers.
    EXPECT_NEAR(std::stod(row[predicted]), speed, 0.51) << name << ": predicted is " << fmt::format("{:.0f}", speed);
    EXPECT_NEAR(std::stod(row[ratio]), times, 0.0051) << name << ": ratio is " << fmt::format("{:.2f}", times);
  }
}

}  // namespace
}  // namespace qshard
