#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <regex>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/base/file.h"
#include "core/sharding/transport.h"

namespace qshard {

/// What a row of sharded_step.json says of itself, and by the same names what was measured by hand.
struct StepCase {
  std::string gpu = "h100";
  std::string model = "llama-2-70b";
  std::int64_t layers = 80;
  std::int64_t length = 2048;
  std::int64_t rows = 1;
  int r = 64;
  std::int64_t ranks = 2;
  std::string checkpointing = "on";
  bool inputs_on_host = false;
  bool offload = false;
  Transport transport = Transport::peer;
  bool has_peer_access = true;  // false: NCCL_P2P_DISABLE=1
  bool moments_8bit = false;
  double budget_gib = 0;  // of each GPU; 0: the whole card
};

struct RecordedStep {
  std::string file;  // in reports/results
  std::string date;  // as ISO 8601 has it
  std::string name;
  StepCase of;
  double seconds = 0;           // median
  std::int64_t peak_bytes = 0;  // of the card, as the driver counts
  std::int64_t arena_bytes = 0;
};

inline std::string gpu_of(const std::string& device) {
  return device.find("H200") != std::string::npos ? "h200" : "h100";
}

/// Of "sharded_step/key:value/...".
inline StepCase case_of(const std::string& gpu, const std::string& name) {
  std::map<std::string, std::string> keys;
  static const std::regex kKey("/([a-z0-9_]+):([^/]+)");
  for (std::sregex_iterator key(name.begin(), name.end(), kKey); key != std::sregex_iterator(); ++key) {
    keys[(*key)[1]] = (*key)[2];
  }
  const auto take = [&](const std::string& key) { return keys.extract(key).mapped(); };
  StepCase of;
  of.gpu = gpu;
  EXPECT_EQ(take("provider"), "qshard");
  of.model = take("model");
  of.layers = std::stoll(take("layers"));
  of.length = std::stoll(take("seq"));
  of.rows = std::stoll(take("micro_batch"));
  of.r = std::stoi(take("r"));
  of.ranks = std::stoll(take("gpus"));
  of.checkpointing = take("checkpointing");
  const std::string transport = take("transport");
  of.offload = transport == "offload";
  if (transport == "nccl") of.transport = Transport::nccl;
  if (transport == "host" || of.offload) of.transport = Transport::host;
  if (keys.contains("budget_gib")) of.budget_gib = std::stod(take("budget_gib"));
  // The budget of a record holds nothing but what it must, unless the weights are elsewhere.
  of.inputs_on_host = of.budget_gib > 0 && !of.offload;
  of.has_peer_access = keys.erase("nccl_p2p_disable") == 0;
  if (keys.contains("moments")) of.moments_8bit = take("moments") == "8bit";
  EXPECT_TRUE(keys.empty()) << name << ": " << keys.begin()->first << " is not predicted";
  return of;
}

inline double median(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

/// Of the line of a record whose card had this peak.
inline std::int64_t arena_bytes_of(const nlohmann::json& lines, std::int64_t peak) {
  const auto distance = [peak](const nlohmann::json& line) {
    return line.contains("arena_bytes") ? std::abs(line.at("peak_bytes").get<std::int64_t>() - peak) : INT64_MAX;
  };
  return std::ranges::min_element(lines, {}, distance)->at("arena_bytes");
}

/// Every recorded step of QShard, a row's steps as one.
inline std::vector<RecordedStep> recorded_steps() {
  std::vector<RecordedStep> steps;
  const std::filesystem::path folder = QSHARD_SOURCE_DIR "/reports/results";
  for (const auto& file : std::filesystem::recursive_directory_iterator(folder)) {
    if (!file.path().filename().string().starts_with("sharded_step")) continue;
    const auto document = nlohmann::json::parse(read_file(file.path()));
    const std::string gpu = gpu_of(document.at("context").at("device"));
    std::map<std::string, std::vector<double>> seconds;
    std::map<std::string, std::int64_t> peaks;
    for (const auto& row : document.at("benchmarks")) {
      const std::string row_name = row.at("name");
      if (row_name.find("provider:qshard") == std::string::npos) continue;
      EXPECT_EQ(row.at("time_unit"), "ms");
      seconds[row_name].push_back(row.at("real_time").get<double>() / 1e3);
      peaks[row_name] = std::max(peaks[row_name], row.at("peak_bytes").get<std::int64_t>());
    }
    for (const auto& [of_row, all] : seconds) {
      steps.push_back({file.path().lexically_relative(folder).string(), document.at("context").at("date"), of_row,
                       case_of(gpu, of_row), median(all), peaks[of_row],
                       arena_bytes_of(document.at("context").at("lines"), peaks[of_row])});
    }
  }
  return steps;
}

}  // namespace qshard
