#include <cmath>
#include <cstdio>

#include "app/commands.h"
#include "app/config_options.h"
#include "app/load_dataset.h"
#include "app/load_model.h"
#include "app/run_on_ranks.h"
#include "core/base/error.h"
#include "core/formats/hf_config.h"
#include "core/training/evaluation.h"

namespace qshard {
namespace {

void evaluate(const RunConfig& config, const std::string& adapter, RankLink& link) {
  Progress progress(link.is_first() ? stdout : nullptr);
  const ModelConfig llama = read_hf_config(std::filesystem::path(config.model_name_or_path) / "config.json");
  const PreparedDataset dataset = load_dataset(config, llama, "dataset.eval_path", link, progress);
  progress.show("loading the model");
  RunBounds bounds;
  bounds.evaluation = bound_of_batches(dataset, config.training.per_device_eval_batch_size, 0);
  const LoadedModel model = load_model(config, adapter, true, &link, bounds);
  link.set_activity("the evaluation");
  const Evaluation result = tell_failures(link, [&] {
    return evaluate_dataset(*model.engine, dataset, config.training.per_device_eval_batch_size, progress);
  });
  progress.print(fmt::format("Adapter     {}", adapter.empty() ? "none" : adapter));
  progress.print(fmt::format("Loss        {:.6f}", result.loss));
  progress.print(fmt::format("Perplexity  {:.6f}", std::exp(result.loss)));
  progress.print(fmt::format("Tokens      {} in the loss, {} in all", result.loss_tokens, dataset.tokens()));
  progress.print(fmt::format("Time        {}", format_duration(result.seconds)));
}

}  // namespace

void add_eval_command(CLI::App& app) {
  auto path = std::make_shared<std::string>();
  auto adapter = std::make_shared<std::string>();
  auto overrides = std::make_shared<Overrides>();
  CLI::App* command = app.add_subcommand("eval", "Loss and perplexity on the evaluation data");
  command->add_option("CONFIG", *path, "Run configuration (YAML)")->required();
  command->add_option("--adapter", *adapter, "PEFT directory to evaluate; without it, adapter_name_or_path");
  const auto launch = add_launch_options(*command);
  add_config_options(*command, overrides, {});
  command->callback([path, adapter, overrides, launch] {
    const RunConfig given = load_run_config(*path, *overrides);
    check_has_dataset(given, "dataset.eval_path");
    run_on_ranks(*launch, given, [&](const RunConfig& config, RankLink& link) {
      evaluate(config, adapter->empty() ? config.adapter_name_or_path : *adapter, link);
    });
  });
}

}  // namespace qshard
