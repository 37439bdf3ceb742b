#include "core/training/trainer_state.h"

#include <string>

#include <fmt/ranges.h>

#include "core/base/error.h"

namespace qshard {
namespace {

constexpr std::string_view kRemedy =
    "Give the value the run started with, or start a new run from this adapter with adapter_name_or_path and another "
    "output_dir";

template <typename T>
void check_same(std::string_view what, const T& saved, const T& now, std::string_view checkpoint) {
  if (saved == now) return;
  fail_input("{}: cannot go on from here: {} was {} and is now {}, so later steps would take other rows. {}",
             checkpoint, what, saved, now, kRemedy);
}

Json optional_number(std::optional<double> value) {
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace

Json to_json(const TrainerState& state) {
  const RunIdentity& identity = state.identity;
  return {{"global_step", state.global_step},
          {"max_steps", state.max_steps},
          {"epoch", state.epoch},
          {"num_input_tokens_seen", state.num_input_tokens_seen},
          {"log_history", state.log_history},
          {"qshard",
           {{"last_eval_step", state.last_eval_step},
            {"first_eval_loss", optional_number(state.first_eval_loss)},
            {"last_eval_loss", optional_number(state.last_eval_loss)},
            {"rows_per_step", identity.rows_per_step},
            {"seed", identity.seed},
            {"shuffle", identity.shuffle},
            {"packing", identity.packing},
            {"dataset_fingerprint", identity.dataset_fingerprint},
            {"fixed", identity.settings.fixed},
            {"adjustable", identity.settings.adjustable}}}};
}

TrainerState parse_trainer_state(std::string_view text, std::string_view where) {
  const Json json = parse_json(text, where);
  const JsonObject object(json, std::string(where));
  const JsonObject own = object.object("qshard");
  TrainerState state;
  state.global_step = object.integer_at_least("global_step", 0);
  state.max_steps = object.integer_at_least("max_steps", 0);
  state.epoch = object.number("epoch");
  state.num_input_tokens_seen = object.integer_at_least("num_input_tokens_seen", 0);
  if (!object.has("log_history") || !json["log_history"].is_array()) {
    fail_input("{}: expected a list", object.where("log_history"));
  }
  state.log_history = json["log_history"];
  state.last_eval_step = own.integer_at_least("last_eval_step", -1);
  if (own.has("first_eval_loss")) state.first_eval_loss = own.number("first_eval_loss");
  if (own.has("last_eval_loss")) state.last_eval_loss = own.number("last_eval_loss");
  state.identity = {own.integer_at_least("rows_per_step", 1),
                    own.integer_at_least("seed", 0),
                    own.boolean("shuffle"),
                    own.boolean("packing"),
                    own.string("dataset_fingerprint"),
                    {own.object("fixed").value(), own.object("adjustable").value()}};
  return state;
}

std::vector<std::string> check_same_run(const RunIdentity& saved, const RunIdentity& now, std::string_view checkpoint) {
  check_same("rows per step (per_device_train_batch_size * gradient_accumulation_steps * world_size)",
             saved.rows_per_step, now.rows_per_step, checkpoint);
  check_same("training.seed", saved.seed, now.seed, checkpoint);
  check_same("dataset.shuffle", saved.shuffle, now.shuffle, checkpoint);
  check_same("dataset.packing", saved.packing, now.packing, checkpoint);
  check_same("the training data's hash", saved.dataset_fingerprint, now.dataset_fingerprint, checkpoint);
  const std::vector<std::string> differences = differing_settings(saved.settings.fixed, now.settings.fixed);
  if (!differences.empty()) {
    fail_input("{}: cannot go on from here: {}. {}", checkpoint, fmt::join(differences, "; "), kRemedy);
  }
  return differing_settings(saved.settings.adjustable, now.settings.adjustable);
}

}  // namespace qshard
