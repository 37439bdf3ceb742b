#include <algorithm>
#include <csignal>
#include <cstdio>

#include <fmt/ranges.h>

#include "app/adapter_directory.h"
#include "app/base_hash.h"
#include "app/commands.h"
#include "app/config_options.h"
#include "app/example_prompt.h"
#include "app/load_dataset.h"
#include "app/load_model.h"
#include "app/run_context.h"
#include "app/run_on_ranks.h"
#include "core/base/error.h"
#include "core/base/stop_signal.h"
#include "core/formats/checkpoint_check.h"
#include "core/formats/hf_config.h"
#include "core/model/module_table.h"
#include "core/training/training_run.h"

namespace qshard {
namespace {

std::int64_t trainable_parameters(const ShardLayout& layout) {
  std::int64_t count = 0;
  for (const Unit& unit : layout.units) {
    for (const Flat& flat : unit.flats) {
      if (!flat.trainable) continue;
      for (const Slot& slot : flat.slots) count += element_count(slot.parameter.shape);
    }
  }
  return count;
}

std::string describe_weights(const RunConfig& config, const LoadedModel& model) {
  if (model.checkpoint.config().prequantized_4bit) {
    return fmt::format("{} of {} linear layers in 4 bits, as in the checkpoint", count_weights4bit(model.checkpoint),
                       linear_modules(model.checkpoint.config()).size());
  }
  const QuantizationOptions& quantization = config.quantization;
  if (!quantization.load_in_4bit) return fmt::format("{} weights", torch_name(model.options.dtype));
  return fmt::format("{}, block {}{}", to_string(quantization.quant_type), quantization.blocksize,
                     quantization.double_quant ? ", double quantization" : "");
}

void print_plan(const RunConfig& config, const LoadedModel& model, const PreparedDataset& train, Progress& progress) {
  const ModelConfig& llama = model.checkpoint.config();
  const TrainingConfig& training = config.training;
  progress.print(fmt::format("Model    {}: {} layers, hidden size {}; {}; {}, computed in {}",
                             config.model_name_or_path, llama.num_hidden_layers, llama.hidden_size,
                             describe_weights(config, model), torch_name(model.options.dtype),
                             torch_name(model.options.compute_dtype)));
  progress.print(fmt::format("Adapter  {}r {}, alpha {}: {} trainable parameters",
                             config.adapter_name_or_path.empty() ? "" : config.adapter_name_or_path + ", ",
                             model.adapter_config.r, model.adapter_config.lora_alpha,
                             trainable_parameters(model.engine->layout())));
  progress.print(fmt::format("Steps    {} of {} rows ({} a rank x {} accumulated x {} ranks)",
                             total_steps(config, train), config.rows_per_step(), training.per_device_train_batch_size,
                             training.gradient_accumulation_steps, config.fsdp.world_size));
  if (training.max_length > llama.max_position_embeddings) {
    progress.print(fmt::format("  note: training.max_length {} is beyond the model's {} positions", training.max_length,
                               llama.max_position_embeddings));
  }
  std::string layout = describe(model.engine->layout());
  while (layout.ends_with('\n')) layout.pop_back();
  progress.print("Shards   " + layout);
  if (!model.note.empty()) progress.print("Cache    " + model.note);
}

void print_summary(const RunConfig& config, const TrainingSummary& summary, const std::vector<std::int64_t>& peaks,
                   Progress& progress) {
  const std::string& output = config.training.output_dir;
  const double tokens_per_second = static_cast<double>(summary.tokens) / std::max(summary.train_seconds, 1e-9);
  progress.print(fmt::format("Trained  {} steps; {} tokens in {} ({:.0f} tokens/s)", summary.steps, summary.tokens,
                             format_duration(summary.train_seconds), tokens_per_second));
  if (summary.loss_before && summary.loss_after) {
    progress.print(fmt::format("Loss     {:.4f} before, {:.4f} after (evaluation data)", *summary.loss_before,
                               *summary.loss_after));
  }
  progress.print(fmt::format("Memory   at most {} a rank; the process {}",
                             format_bytes(static_cast<double>(*std::ranges::max_element(peaks))),
                             format_bytes(process_peak_bytes())));
  progress.print(
      fmt::format("Wrote    {0}/adapter_model.safetensors, {0}/adapter_config.json, {0}/metrics.jsonl", output));
  progress.print(fmt::format("See it   ./qshard generate --model {} --adapter {} --with-base{}{}",
                             shell_word(config.model_name_or_path), shell_word(output),
                             options_as_arguments(config, model_option_prefixes()),
                             example_prompt_arguments(config.dataset.eval_path)));
}

RunBounds bounds_of_run(const RunConfig& config, const PreparedDataset& train, const PreparedDataset* eval) {
  const TrainingConfig& training = config.training;
  RunBounds bounds;
  bounds.training =
      bound_of_batches(train, training.per_device_train_batch_size, config.dataset.packing ? training.max_length : 0);
  if (eval != nullptr) bounds.evaluation = bound_of_batches(*eval, training.per_device_eval_batch_size, 0);
  return bounds;
}

/// Says where a run that a signal ended can be gone on with.
void print_stop(const RunConfig& config, const TrainingSummary& summary, const std::string& resuming,
                Progress& progress) {
  const std::string_view name = summary.stopped_by == SIGINT ? "Ctrl-C" : "SIGTERM";
  if (summary.last_checkpoint.empty()) {
    progress.print(fmt::format("Stopped  by {} after step {}; nothing is saved{}", name, summary.steps,
                               config.training.save_strategy == Interval::no ? " (training.save_strategy: no)" : ""));
    return;
  }
  progress.print(
      fmt::format("Stopped  by {} after step {}; saved {}", name, summary.steps, summary.last_checkpoint.string()));
  progress.print("Go on    " + resuming);
}

/// Rank 0 hashes the weights where a checkpoint will be written or read.
bool is_hash_needed(const RunConfig& config, const RankLink& link) {
  const TrainingConfig& training = config.training;
  return link.is_first() && (training.save_strategy != Interval::no || training.resume_from_checkpoint != "false");
}

/// What rank 0 has found; the others take its word.
std::string shared_base_hash(std::optional<BaseHash>& found, RankLink& link, Progress& progress) {
  std::string hash;
  if (found) {
    progress.show("hashing the base weights");
    hash = found->get();
  }
  const auto shared = link.broadcast(std::as_bytes(std::span(hash)), 0);
  return {reinterpret_cast<const char*>(shared.data()), shared.size()};
}

/// Tables that an adapter's file has along would be frozen in PEFT and trained here: neither is said, so it is refused.
void check_trained_whole(const RunConfig& config, const LoadedModel& model) {
  if (model.saved_along.empty()) return;
  fail_input(
      "adapter_name_or_path: {} has {} along without naming them in modules_to_save of its adapter_config.json, so "
      "they "
      "are not to be trained; put the adapter into the model by ./qshard merge and start a new one, or name them there",
      config.adapter_name_or_path, fmt::join(model.saved_along, " and "));
}

/// Returns the exit code.
int train(const RunConfig& config, const std::string& command, const std::string& resuming, RankLink& link) {
  Progress progress(link.is_first() ? stdout : nullptr);
  OutputDirectory output;  // rank 0 alone writes into it
  if (link.is_first()) output = open_output_directory(config.training);
  for (const std::string& note : output.notes) progress.print(note);
  const ModelConfig llama = read_hf_config(std::filesystem::path(config.model_name_or_path) / "config.json");
  const PreparedDataset train_rows = load_dataset(config, llama, "dataset.path", link, progress);
  std::optional<PreparedDataset> eval_rows;
  if (!config.dataset.eval_path.empty()) eval_rows = load_dataset(config, llama, "dataset.eval_path", link, progress);

  progress.show("loading the model");
  link.set_activity("the loading of the model");
  std::optional<BaseHash> base_hash;
  if (is_hash_needed(config, link)) base_hash.emplace(config);
  const LoadedModel model = load_model(config, config.adapter_name_or_path, true, &link,
                                       bounds_of_run(config, train_rows, eval_rows ? &*eval_rows : nullptr));
  check_trained_whole(config, model);
  print_plan(config, model, train_rows, progress);
  const SaveAdapter save = [&](const std::filesystem::path& directory, const NamedTensors& tensors) {
    save_adapter_directory(directory, model.adapter_config, tensors, config.model_name_or_path);
  };
  const PreparedDataset* eval = eval_rows ? &*eval_rows : nullptr;
  const RunContext context = run_context(config, model, command);
  const RunSettings settings =
      run_settings(config, model.options, model.adapter_config, shared_base_hash(base_hash, link, progress));
  TrainingJob job{config, *model.engine, train_rows, eval, output, save, progress, context, &link, settings};
  return tell_failures(link, [&] {
    const TrainingSummary summary = run_training(job);
    if (summary.stopped_by != 0) {
      print_stop(config, summary, resuming, progress);
      return exit_code_of_signal(summary.stopped_by);
    }
    print_summary(config, summary, model.engine->peak_bytes_by_rank(), progress);
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

void add_train_command(CLI::App& app) {
  auto path = std::make_shared<std::string>();
  auto overrides = std::make_shared<Overrides>();
  CLI::App* command = app.add_subcommand("train", "QLoRA fine-tuning, sharded over ranks");
  command->add_option("CONFIG", *path, "Run configuration (YAML); any of its keys can be given as an option too")
      ->required();
  const auto launch = add_launch_options(*command);
  add_config_options(*command, overrides, {});
  command->callback([path, overrides, launch] {
    int code = static_cast<int>(ExitCode::done);
    const RunConfig given = load_run_config(*path, *overrides);
    check_has_dataset(given, "dataset.path");
    run_on_ranks(*launch, given, [&](const RunConfig& config, RankLink& link) {
      code = train(config, training_command(*path, *overrides), resuming_command(*path, *overrides, *launch), link);
    });
    if (code != 0) throw CLI::RuntimeError(code);
  });
}

}  // namespace qshard
