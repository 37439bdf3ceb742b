#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "core/base/json.h"
#include "core/training/run_settings.h"

namespace qshard {

/// What fixes the rows of every step, and what the arithmetic depends on; a resumed run must agree in all of it but the
/// adjustable settings, so that it goes on to the bit.
struct RunIdentity {
  std::int64_t rows_per_step = 0;
  std::int64_t seed = 0;
  bool shuffle = false;
  bool packing = false;
  std::string dataset_fingerprint;  // 16 hexadecimal digits
  RunSettings settings;

  bool operator==(const RunIdentity&) const = default;
};

/// trainer_state.json: where a run stands. The keys that transformers' Trainer has carry its names; the rest is under
/// "qshard".
struct TrainerState {
  std::int64_t global_step = 0;
  std::int64_t max_steps = 0;
  double epoch = 0;
  std::int64_t num_input_tokens_seen = 0;
  std::int64_t last_eval_step = -1;  // -1: none yet
  std::optional<double> first_eval_loss;
  std::optional<double> last_eval_loss;
  Json log_history = Json::array();
  RunIdentity identity;
};

Json to_json(const TrainerState& state);

/// The inverse; `where` names the file. Throws Error(bad_input) that names the key.
TrainerState parse_trainer_state(std::string_view text, std::string_view where);

/// Throws Error(bad_input) that names what differs and what to do, unless both runs take the same rows in each step and
/// compute the same of them. Returns a line for each adjustable setting that differs.
std::vector<std::string> check_same_run(const RunIdentity& saved, const RunIdentity& now, std::string_view checkpoint);

}  // namespace qshard
