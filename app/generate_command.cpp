#include <cstdio>

#include "app/commands.h"
#include "app/config_options.h"
#include "app/load_model.h"
#include "app/text_tokens.h"
#include "core/base/error.h"
#include "core/base/progress.h"
#include "core/formats/hf_config.h"
#include "core/formats/peft_adapter.h"
#include "core/launch/rank_link.h"
#include "core/training/sampling.h"

namespace qshard {
namespace {

struct GenerateArguments {
  std::string model;
  std::vector<std::string> adapters;
  std::string prompt;
  std::string instruction;
  std::string input;
  std::int64_t max_new_tokens = 64;
  SamplingOptions sampling;
  Overrides overrides;
};

Json request_of(const GenerateArguments& arguments) {
  if (!arguments.instruction.empty()) return {{"instruction", arguments.instruction}, {"input", arguments.input}};
  return {{"prompt", arguments.prompt}};
}

/// Tokens that are left after the prompt, at most those that were asked for.
std::int64_t most_new_tokens(const GenerateArguments& arguments, const std::vector<std::int32_t>& prompt,
                             const ModelConfig& model) {
  return std::min(arguments.max_new_tokens, model.max_position_embeddings - std::ssize(prompt));
}

/// Tokens after `prompt`, up to a stop token or the model's last position.
std::vector<std::int32_t> generate_tokens(TrainingEngine& engine, const GenerateArguments& arguments,
                                          const TextTokens::Prompts& prompts, const ModelConfig& model,
                                          Progress& progress) {
  const std::vector<std::int32_t>& prompt = prompts.ids.at(0);
  const std::int64_t most = most_new_tokens(arguments, prompt, model);
  std::vector<std::int32_t> tokens;
  if (most <= 0) return tokens;
  const auto decoder = engine.make_decoder(1, std::ssize(prompt) + most);
  Sampler sampler(arguments.sampling);
  TokenLogits logits = decoder->start(std::span(&prompt, 1));
  while (true) {
    const std::int32_t next = sampler.next(logits.row(0));
    if (std::ranges::find(prompts.stop_ids, next) != prompts.stop_ids.end()) break;
    tokens.push_back(next);
    progress.show(fmt::format("token {} of {}", tokens.size(), arguments.max_new_tokens));
    if (std::ssize(tokens) == most) break;
    logits = decoder->next(std::span(&next, 1));
  }
  return tokens;
}

RunConfig model_config(const GenerateArguments& arguments) {
  Overrides overrides = arguments.overrides;
  overrides.emplace_back("model_name_or_path", arguments.model);
  RunConfig config = parse_run_config("", "command line", overrides);
  check_run_config(config);
  return config;
}

RunBounds bounds_of(const GenerateArguments& arguments, const std::vector<std::int32_t>& prompt) {
  const ModelConfig model = read_hf_config(std::filesystem::path(arguments.model) / "config.json");
  const std::int64_t most = most_new_tokens(arguments, prompt, model);
  return most > 0 ? RunBounds{{}, {}, {1, std::ssize(prompt) + most}} : RunBounds{};
}

void generate(const GenerateArguments& arguments) {
  const RunConfig config = model_config(arguments);
  const TextTokens text(arguments.model);
  const TextTokens::Prompts prompts = text.encode(Json::array({request_of(arguments)}));
  const RunBounds bounds = bounds_of(arguments, prompts.ids.at(0));
  RankLink link = RankLink::connect(RankInfo{}, {});
  Progress progress(stdout);
  progress.print("--- prompt\n" + prompts.texts.at(0));
  const auto show = [&](TrainingEngine& engine, const ModelConfig& llama, const std::string& title) {
    const auto tokens = generate_tokens(engine, arguments, prompts, llama, progress);
    progress.print(fmt::format("--- {}\n{}", title, text.decode(tokens)));
  };
  const std::string first = arguments.adapters.empty() ? "" : arguments.adapters.front();
  LoadedModel model = load_model(config, first, false, &link, bounds);  // a new adapter changes nothing: the base model
  show(*model.engine, model.checkpoint.config(), "base model");
  for (const std::string& adapter : arguments.adapters) {
    if (adapter == first) {
      model.engine->load_adapter(read_adapter(adapter, model.checkpoint.config()).tensors);
    } else {
      model = load_model(config, adapter, true, &link, bounds);
    }
    show(*model.engine, model.checkpoint.config(), "with " + adapter);
  }
}

}  // namespace

void add_generate_command(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  auto overrides = std::shared_ptr<Overrides>(arguments, &arguments->overrides);
  CLI::App* command = app.add_subcommand("generate", "Text from the base model and from its adapters");
  command->add_option("--model", arguments->model, "Hugging Face directory")->required();
  command->add_option("--adapter", arguments->adapters, "PEFT directory; may be given again")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  auto* prompt = command->add_option_group("Prompt", "Exactly one of");
  prompt->add_option("--prompt", arguments->prompt, "Text to go on from");
  prompt->add_option("--instruction", arguments->instruction, "Instruction of an Alpaca prompt, with --input if any");
  prompt->require_option(1);
  command->add_option("--input", arguments->input, "Input of the Alpaca prompt");
  command->add_option("--max-new-tokens", arguments->max_new_tokens, "Tokens to generate at most")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command->add_option("--temperature", arguments->sampling.temperature, "0: greedy; else the softmax's temperature")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  command->add_option("--top-k", arguments->sampling.top_k, "Draw from the k most likely tokens; 0: from all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--seed", arguments->sampling.seed, "Seed of the draws")->capture_default_str();
  add_config_options(*command, overrides, model_option_prefixes());
  command->callback([arguments] { generate(*arguments); });
}

}  // namespace qshard
