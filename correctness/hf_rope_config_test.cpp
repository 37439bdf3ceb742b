#include "core/formats/hf_rope_config.h"

#include <cmath>

#include "correctness/expect_error.h"

namespace qshard {
namespace {

constexpr std::int64_t kPositions = 131072;

RopeConfig parse(const Json& json) {
  return read_rope_config(JsonObject(json, "config.json"), kPositions);
}

void expect_refused(const Json& json, std::initializer_list<std::string_view> texts) {
  SCOPED_TRACE(json.dump());
  expect_bad_input(texts, [&] { parse(json); });
}

/// The same in transformers 4's spelling, in its oldest one with "type", and in transformers 5's.
std::vector<RopeConfig> in_every_spelling(Json scaling, double theta) {
  std::vector<RopeConfig> read{parse({{"rope_theta", theta}, {"rope_scaling", scaling}})};
  Json oldest = scaling;
  oldest["type"] = oldest["rope_type"];
  oldest.erase("rope_type");
  read.push_back(parse({{"rope_theta", theta}, {"rope_scaling", oldest}}));
  read.push_back(parse({{"rope_theta", theta}, {"rope_parameters", scaling}}));
  scaling["rope_theta"] = theta;
  read.push_back(parse({{"rope_parameters", scaling}}));
  return read;
}

TEST(HfRopeConfig, NothingIsTheStandardTable) {
  for (const Json& json :
       {Json::object(), Json{{"rope_scaling", nullptr}}, Json{{"rope_parameters", Json::object()}}}) {
    const RopeConfig rope = parse(json);
    EXPECT_EQ(rope.type, RopeType::standard);
    EXPECT_EQ(rope.theta, 10000.0);
    EXPECT_EQ(rope.attention_factor, 1.0);
  }
  EXPECT_EQ(parse({{"rope_theta", 5000}}).theta, 5000.0);
  EXPECT_EQ(parse({{"rope_theta", 5000}, {"rope_parameters", {{"rope_theta", 7000}}}}).theta, 7000.0);
}

TEST(HfRopeConfig, Llama3) {
  const Json scaling = {{"rope_type", "llama3"},
                        {"factor", 32.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
  for (const RopeConfig& rope : in_every_spelling(scaling, 500000.0)) {
    EXPECT_EQ(rope.type, RopeType::llama3);
    EXPECT_EQ(rope.theta, 500000.0);
    EXPECT_EQ(rope.factor, 32.0);
    EXPECT_EQ(rope.low_freq_factor, 1.0);
    EXPECT_EQ(rope.high_freq_factor, 4.0);
    EXPECT_EQ(rope.original_max_position_embeddings, 8192);
  }
}

TEST(HfRopeConfig, LinearAndDynamic) {
  for (const RopeConfig& rope : in_every_spelling({{"rope_type", "linear"}, {"factor", 8}}, 20000.0)) {
    EXPECT_EQ(rope.type, RopeType::linear);
    EXPECT_EQ(rope.theta, 20000.0);
    EXPECT_EQ(rope.factor, 8.0);
  }
  for (const RopeConfig& rope : in_every_spelling({{"rope_type", "dynamic"}, {"factor", 2.5}}, 20000.0)) {
    EXPECT_EQ(rope.type, RopeType::dynamic);
    EXPECT_EQ(rope.factor, 2.5);
    EXPECT_EQ(rope.original_max_position_embeddings, kPositions);
  }
}

TEST(HfRopeConfig, YarnWithItsDefaults) {
  const Json scaling = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}};
  for (const RopeConfig& rope : in_every_spelling(scaling, 1e6)) {
    EXPECT_EQ(rope.type, RopeType::yarn);
    EXPECT_EQ(rope.factor, 4.0);
    EXPECT_EQ(rope.original_max_position_embeddings, 32768);
    EXPECT_EQ(rope.beta_fast, 32.0);
    EXPECT_EQ(rope.beta_slow, 1.0);
    EXPECT_TRUE(rope.truncate);
    EXPECT_DOUBLE_EQ(rope.attention_factor, 0.1 * std::log(4.0) + 1.0);
  }
}

TEST(HfRopeConfig, YarnsAttentionFactor) {
  const auto factor = [](const Json& changes) {
    Json scaling = {{"rope_type", "yarn"}, {"factor", 40.0}};
    scaling.update(changes);
    return parse({{"rope_parameters", scaling}}).attention_factor;
  };
  EXPECT_EQ(factor({{"attention_factor", 0.7}}), 0.7);
  EXPECT_EQ(factor({{"factor", 1.0}}), 1.0);
  EXPECT_DOUBLE_EQ(factor({{"mscale", 0.5}, {"mscale_all_dim", 2.0}}),
                   (0.05 * std::log(40.0) + 1) / (0.2 * std::log(40.0) + 1));
  EXPECT_DOUBLE_EQ(factor({{"mscale", 0.5}}), 0.1 * std::log(40.0) + 1);  // one without the other does not count
  EXPECT_DOUBLE_EQ(factor({{"attention_factor", nullptr}}), 0.1 * std::log(40.0) + 1);
}

TEST(HfRopeConfig, OriginalPositionsDefaultToTheModels) {
  const Json yarn = {{"rope_type", "yarn"}, {"factor", 4.0}};
  EXPECT_EQ(parse({{"rope_parameters", yarn}}).original_max_position_embeddings, kPositions);
  EXPECT_EQ(
      parse({{"rope_parameters", yarn}, {"original_max_position_embeddings", 77}}).original_max_position_embeddings,
      77);
  const Json without_factor = {{"rope_type", "yarn"}, {"original_max_position_embeddings", 32768}};
  EXPECT_EQ(parse({{"rope_parameters", without_factor}}).factor, 4.0);  // 131072 / 32768
}

TEST(HfRopeConfig, RopeScalingCountsWhereBothAreThere) {
  const RopeConfig rope = parse({{"rope_scaling", {{"type", "linear"}, {"factor", 2}}},
                                 {"rope_parameters", {{"rope_type", "dynamic"}, {"factor", 3}, {"rope_theta", 5}}}});
  EXPECT_EQ(rope.type, RopeType::linear);
  EXPECT_EQ(rope.factor, 2.0);
  EXPECT_EQ(rope.theta, 10000.0);
}

TEST(HfRopeConfig, WhatIsNotComputedIsNamed) {
  expect_refused({{"rope_scaling", {{"type", "longrope"}, {"factor", 2.0}}}}, {"rope_scaling: type", "longrope"});
  expect_refused({{"rope_parameters", {{"rope_type", "proportional"}}}},
                 {"rope_parameters: rope_type", "proportional", "known: default, linear, dynamic, yarn, llama3"});
  expect_refused({{"partial_rotary_factor", 0.5}}, {"config.json: partial_rotary_factor", "0.5"});
  expect_refused({{"rope_parameters", {{"partial_rotary_factor", 0.5}}}}, {"rope_parameters: partial_rotary_factor"});
  expect_refused({{"rope_parameters", {{"full_attention", {{"rope_type", "default"}}}}}},
                 {"rope_parameters: full_attention", "one for all layers"});
}

TEST(HfRopeConfig, WrongNumbersAreNamed) {
  expect_refused({{"rope_theta", -1}}, {"config.json: rope_theta", "positive"});
  expect_refused({{"rope_scaling", {{"rope_type", "linear"}}}}, {"rope_scaling: factor", "missing"});
  expect_refused({{"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 0}}}}, {"rope_scaling: factor", "positive"});
  expect_refused({{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}}}, {"rope_scaling: low_freq_factor"});
  expect_refused(
      {{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 4}, {"high_freq_factor", 4}}}},
      {"rope_scaling: high_freq_factor", "greater"});
  const auto yarn = [](const Json& changes) {
    Json scaling = {{"rope_type", "yarn"}, {"factor", 4.0}};
    scaling.update(changes);
    return Json{{"rope_parameters", scaling}};
  };
  expect_refused(yarn({{"original_max_position_embeddings", 0}}), {"original_max_position_embeddings", "at least 1"});
  expect_refused(yarn({{"beta_fast", 1}, {"beta_slow", 32}}), {"beta_fast", "below beta_slow"});
  expect_refused(yarn({{"rope_theta", 1.0}}), {"rope_theta", "above 1"});
  expect_refused(yarn({{"truncate", 1}}), {"truncate", "true or false"});
}

}  // namespace
}  // namespace qshard
