#include "core/formats/hf_rope_config.h"

#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "core/base/error.h"

namespace qshard {
namespace {

constexpr std::array<std::pair<std::string_view, RopeType>, 5> kTypes{{{"default", RopeType::standard},
                                                                       {"linear", RopeType::linear},
                                                                       {"dynamic", RopeType::dynamic},
                                                                       {"yarn", RopeType::yarn},
                                                                       {"llama3", RopeType::llama3}}};

double positive(const JsonObject& fields, std::string_view key) {
  const double value = fields.number(key);
  if (!(value > 0)) fail_input("{}: must be positive, but is {}", fields.where(key), value);
  return value;
}

double positive(const JsonObject& fields, std::string_view key, double otherwise) {
  return fields.has(key) ? positive(fields, key) : otherwise;
}

RopeType read_type(const JsonObject& scaling) {
  const std::string_view key = scaling.has("rope_type") ? "rope_type" : "type";
  if (!scaling.has(key)) return RopeType::standard;
  for (const auto& [name, type] : kTypes) {
    if (scaling.string(key) == name) return type;
  }
  fail_input("{}: \"{}\" is not supported; known: default, linear, dynamic, yarn, llama3", scaling.where(key),
             scaling.string(key));
}

void refuse_partial(const JsonObject& fields) {
  constexpr std::string_view kKey = "partial_rotary_factor";
  if (fields.has(kKey) && fields.number(kKey) != 1.0) {
    fail_input("{}: {} is not supported; known: 1, every feature of a head is turned", fields.where(kKey),
               fields.number(kKey));
  }
}

void refuse_kinds_by_layer(const JsonObject& scaling) {
  for (const auto& item : scaling.value().items()) {
    if (item.value().is_object()) {
      fail_input("{}: another rotary embedding for some layers is not supported; known: one for all layers",
                 scaling.where(item.key()));
    }
  }
}

// The positions that the model was trained on before its context was made longer.
std::int64_t original_positions(const JsonObject& fields, const JsonObject& scaling, std::int64_t max_positions) {
  constexpr std::string_view kKey = "original_max_position_embeddings";
  if (fields.has(kKey)) return fields.integer_at_least(kKey, 1);
  return scaling.has(kKey) ? scaling.integer_at_least(kKey, 1) : max_positions;
}

double yarn_attention_factor(const JsonObject& scaling, double factor) {
  if (scaling.has("attention_factor")) return positive(scaling, "attention_factor");
  const auto magnitude = [factor](double weight) { return factor <= 1 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0; };
  const double mscale = scaling.has("mscale") ? scaling.number("mscale") : 0.0;
  const double all_dim = scaling.has("mscale_all_dim") ? scaling.number("mscale_all_dim") : 0.0;
  return mscale != 0 && all_dim != 0 ? magnitude(mscale) / magnitude(all_dim) : magnitude(1.0);
}

void read_yarn(const JsonObject& scaling, std::int64_t max_positions, RopeConfig& rope) {
  const double ratio = static_cast<double>(max_positions) / static_cast<double>(rope.original_max_position_embeddings);
  rope.factor = positive(scaling, "factor", ratio);
  rope.attention_factor = yarn_attention_factor(scaling, rope.factor);
  rope.beta_fast = positive(scaling, "beta_fast", rope.beta_fast);
  rope.beta_slow = positive(scaling, "beta_slow", rope.beta_slow);
  if (scaling.has("truncate")) rope.truncate = scaling.boolean("truncate");
  if (rope.theta <= 1) fail_input("{}: must be above 1 with yarn, but is {}", scaling.where("rope_theta"), rope.theta);
  if (rope.beta_fast < rope.beta_slow) {
    fail_input("{}: {} is below beta_slow, {}", scaling.where("beta_fast"), rope.beta_fast, rope.beta_slow);
  }
}

void read_llama3(const JsonObject& scaling, RopeConfig& rope) {
  rope.factor = positive(scaling, "factor");
  rope.low_freq_factor = positive(scaling, "low_freq_factor");
  rope.high_freq_factor = positive(scaling, "high_freq_factor");
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    fail_input("{}: must be greater than low_freq_factor", scaling.where("high_freq_factor"));
  }
}

void read_scaling(const JsonObject& fields, const JsonObject& scaling, std::int64_t max_positions, RopeConfig& rope) {
  refuse_partial(scaling);
  rope.type = read_type(scaling);
  switch (rope.type) {
    case RopeType::standard:
      return;
    case RopeType::linear:
      rope.factor = positive(scaling, "factor");
      return;
    case RopeType::dynamic:
      rope.factor = positive(scaling, "factor");
      rope.original_max_position_embeddings = max_positions;
      return;
    case RopeType::yarn:
      rope.original_max_position_embeddings = original_positions(fields, scaling, max_positions);
      read_yarn(scaling, max_positions, rope);
      return;
    case RopeType::llama3:
      rope.original_max_position_embeddings = original_positions(fields, scaling, max_positions);
      read_llama3(scaling, rope);
      return;
  }
}

}  // namespace

RopeConfig read_rope_config(const JsonObject& fields, std::int64_t max_positions) {
  RopeConfig rope;
  refuse_partial(fields);
  rope.theta = positive(fields, "rope_theta", rope.theta);
  const bool old_spelling = fields.has("rope_scaling") && !fields.value().at("rope_scaling").empty();
  const std::string_view key = old_spelling ? "rope_scaling" : "rope_parameters";
  if (!fields.has(key)) return rope;
  const JsonObject scaling = fields.object(key);
  refuse_kinds_by_layer(scaling);
  rope.theta = positive(scaling, "rope_theta", rope.theta);
  read_scaling(fields, scaling, max_positions, rope);
  return rope;
}

}  // namespace qshard
