#include <cstdio>
#include <memory>

#include "app/commands.h"
#include "app/config_options.h"
#include "app/generate_text.h"
#include "app/load_model.h"
#include "app/standard_streams.h"
#include "app/text_service.h"
#include "core/base/error.h"
#include "core/base/progress.h"
#include "core/formats/hf_config.h"
#include "core/formats/peft_adapter.h"
#include "core/launch/rank_link.h"

namespace qshard {
namespace {

struct GenerateArguments {
  std::string model;
  std::vector<std::string> adapters;
  bool with_base = false;
  std::vector<std::string> prompts;
  std::string instruction;
  std::string input;
  PromptRequest request;
  GenerationOptions generation;
  bool as_json = false;
  Overrides overrides;
};

PromptRequest request_of(const GenerateArguments& arguments) {
  PromptRequest request = arguments.request;
  for (const std::string& prompt : arguments.prompts) request.prompts.push_back({{"prompt", prompt}});
  if (!arguments.instruction.empty()) {
    request.prompts.push_back({{"instruction", arguments.instruction}, {"input", arguments.input}});
  }
  return request;
}

RunConfig model_config(const GenerateArguments& arguments) {
  Overrides overrides = arguments.overrides;
  overrides.emplace_back("model_name_or_path", arguments.model);
  RunConfig config = parse_run_config("", "command line", overrides);
  check_run_config(config);
  return config;
}

void write_out(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  flush_standard_output();
}

/// Answers on standard output, each with a line break behind it; everything else on standard error.
class PlainAnswers : public AnswerOutput {
 public:
  PlainAnswers(const std::string& title, const EncodedPrompts& prompts, Progress& notes)
      : title_(title), prompts_(prompts), notes_(notes) {}

  void begin(std::size_t prompt) override {
    notes_.print(fmt::format("--- prompt {} of {}\n{}", prompt + 1, prompts_.texts.size(), prompts_.texts.at(prompt)));
    notes_.print("--- " + title_);
  }
  void text(std::string_view piece) override { write_out(piece); }
  void end(const AnswerEnd& end) override {
    write_out("\n");
    if (end.reason == "positions") notes_.print("note: the answer ends at the model's last position");
  }

 private:
  const std::string& title_;
  const EncodedPrompts& prompts_;
  Progress& notes_;
};

/// A JSON object a line and answer.
class JsonAnswers : public AnswerOutput {
 public:
  JsonAnswers(const std::string& title, const EncodedPrompts& prompts) : title_(title), prompts_(prompts) {}

  void begin(std::size_t /*prompt*/) override { text_.clear(); }
  void text(std::string_view piece) override { text_ += piece; }
  void end(const AnswerEnd& end) override {
    const Json line{{"prompt", prompts_.texts.at(end.prompt)},
                    {"model", title_},
                    {"text", text_},
                    {"tokens", end.tokens},
                    {"ended_by", end.reason}};
    write_out(line.dump() + "\n");
  }

 private:
  const std::string& title_;
  const EncodedPrompts& prompts_;
  std::string text_;
};

void generate(const GenerateArguments& arguments) {
  const RunConfig config = model_config(arguments);
  TextService text(arguments.model);
  const EncodedPrompts prompts = text.encode(request_of(arguments));
  const ModelConfig read = read_hf_config(std::filesystem::path(arguments.model) / "config.json");
  const RunBounds bounds{{}, {}, decoder_bound(prompts.ids, arguments.generation, read)};
  RankLink link = RankLink::connect(RankInfo{}, {});
  Progress notes(stderr);
  const auto show = [&](const LoadedModel& model, const std::string& title) {
    std::unique_ptr<AnswerOutput> output = std::make_unique<PlainAnswers>(title, prompts, notes);
    if (arguments.as_json) output = std::make_unique<JsonAnswers>(title, prompts);
    generate_answers(*model.engine, model.checkpoint.config(), prompts, arguments.generation, text, *output);
  };
  const bool shows_base = arguments.with_base || arguments.adapters.empty();
  const std::string first = arguments.adapters.empty() ? "" : arguments.adapters.front();
  // A new adapter changes nothing: the base model.
  LoadedModel model = load_model(config, first, !shows_base, &link, bounds);
  if (shows_base) show(model, "base model");
  for (const std::string& adapter : arguments.adapters) {
    if (adapter != first) {
      model = load_model(config, adapter, true, &link, bounds);
    } else if (shows_base) {
      model.engine->load_adapter(read_adapter(adapter, model.checkpoint.config()).tensors);
    }
    show(model, "with " + adapter);
  }
}

void add_prompt_options(CLI::App& command, GenerateArguments& arguments) {
  auto* prompt = command.add_option_group("Prompt", "Exactly one kind of");
  prompt->add_option("--prompt", arguments.prompts, "Text to go on from; may be given again")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  prompt->add_option("--prompts", arguments.request.file,
                     "File of prompts: a text a line, empty lines left out (.txt); or rows with prompt, messages or "
                     "instruction (.jsonl, .json, .csv, .parquet)");
  auto* instruction = prompt->add_option("--instruction", arguments.instruction,
                                         "Instruction of an Alpaca prompt, with --input if any");
  prompt->require_option(1);
  command.add_option("--input", arguments.input, "Input of the Alpaca prompt")->needs(instruction);
  auto* chat = command.add_flag("--chat", arguments.request.chat,
                                "Each text prompt is a user's message, rendered with the model's chat template (rows "
                                "with messages always are)");
  command.add_option("--system", arguments.request.system, "The system's message of a --chat that has none")
      ->needs(chat);
  command
      .add_option("--stop", arguments.request.stop,
                  "Text that ends an answer and is not printed; may be given again, and may be a special token")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

/// Draws are made from a temperature of 1 where only --top-k or --top-p asks for them.
void add_sampling_options(CLI::App& command, SamplingOptions& sampling) {
  auto* temperature = command.add_option("--temperature", sampling.temperature,
                                         "0: greedy; else the softmax's temperature; without it 0, or 1 with --top-k "
                                         "or --top-p");
  temperature->check(CLI::Range(0.0, 100.0));
  auto* top_k = command.add_option("--top-k", sampling.top_k, "Draw from the k most likely tokens; 0: from all")
                    ->check(CLI::NonNegativeNumber)
                    ->capture_default_str();
  auto* top_p = command
                    .add_option("--top-p", sampling.top_p,
                                "Draw from the fewest most likely tokens that together have this probability, "
                                "after --top-k")
                    ->capture_default_str();
  command.add_option("--seed", sampling.seed, "Seed of the draws; prompt i draws with it plus i - 1")
      ->capture_default_str();
  command.parse_complete_callback([&sampling, temperature, top_k, top_p] {
    if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
      fail_input("--top-p {}: must be above 0 and at most 1", sampling.top_p);
    }
    if (top_k->count() + top_p->count() == 0) return;
    if (temperature->count() == 0) sampling.temperature = 1;
    if (sampling.temperature == 0) fail_input("--temperature 0 is greedy: --top-k and --top-p would change nothing");
  });
}

}  // namespace

void add_generate_command(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  auto overrides = std::shared_ptr<Overrides>(arguments, &arguments->overrides);
  CLI::App* command = app.add_subcommand(
      "generate",
      "Text from a model, or from it with an adapter: answers alone on standard output, as they come, each with a line "
      "break behind it; notes on standard error");
  command->add_option("--model", arguments->model, "Hugging Face directory")->required();
  auto* adapter = command->add_option("--adapter", arguments->adapters, "PEFT directory; may be given again");
  adapter->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_flag("--with-base", arguments->with_base, "The model without adapter too, first")->needs(adapter);
  add_prompt_options(*command, *arguments);
  command->add_option("--max-new-tokens", arguments->generation.max_new_tokens, "Tokens of an answer at most")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command
      ->add_option("--batch-size", arguments->generation.batch_size,
                   "Prompts that are continued at once; the first of them is shown as it comes")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  add_sampling_options(*command, arguments->generation.sampling);
  command->add_flag("--json", arguments->as_json,
                    "A line of JSON an answer: prompt, model, text, tokens, ended_by (stop, length or positions)");
  add_config_options(*command, overrides, model_option_prefixes());
  command->callback([arguments] { generate(*arguments); });
}

}  // namespace qshard
