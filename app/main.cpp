#include <cstdio>
#include <new>
#include <system_error>

#include "app/commands.h"
#include "app/standard_streams.h"
#include "core/base/error.h"
#include "core/base/nearest_name.h"
#include "core/run/run_options.h"

namespace {

int report(qshard::ExitCode code, std::string_view message) {
  fmt::print(stderr, "qshard: error: {}\n", message);
  return static_cast<int>(code);
}

/// In one line what CLI11 says, or the name that was probably meant, and where the right ones are listed.
std::string usage_message(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  std::string message = error.what();
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const std::string_view key = argument.substr(0, argument.find('='));
    if (key.starts_with("--") && key.find('.') != std::string_view::npos && !qshard::find_run_option(key.substr(2))) {
      message = fmt::format("{}: unknown option{}", key, qshard::suggest_run_option(key.substr(2)));
    }
  }
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  if (argc > 1 && argv[1][0] != '-' && chosen.empty()) {
    std::vector<std::string_view> names;
    for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
    const std::string_view nearest = qshard::nearest_name(argv[1], names);
    message = fmt::format("{}: unknown command{}", argv[1],
                          nearest.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", nearest));
  }
  return fmt::format("{}; see qshard {}--help", message, chosen.empty() ? "" : chosen.front()->get_name() + " ");
}

int run_command(CLI::App& app, int argc, char** argv) {
  int code = 0;
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& wanted) {  // --help, --version
    code = app.exit(wanted);
  }
  qshard::flush_standard_output();
  return code;
}

int parse_and_run(CLI::App& app, int argc, char** argv) {
  try {
    return run_command(app, argc, argv);
  } catch (const CLI::RuntimeError& ended) {  // the processes that the command started
    return ended.get_exit_code();
  } catch (const CLI::ParseError& error) {
    return report(qshard::ExitCode::bad_input, usage_message(app, error, argc, argv));
  } catch (const qshard::Error& error) {
    return report(error.code(), error.what());
  } catch (const std::system_error& error) {  // of a print, a thread or a file system
    const std::error_code& code = error.code();
    const bool lacks = code == std::errc::no_space_on_device || code == std::errc::file_too_large ||
                       code == std::errc::not_enough_memory || code == std::errc::resource_unavailable_try_again;
    const bool is_thread = code == std::errc::resource_unavailable_try_again;
    return report(lacks ? qshard::ExitCode::out_of_resources : qshard::ExitCode::bad_input,
                  is_thread
                      ? "no further thread can be started; raise the limits on processes and on memory (ulimit -u, "
                        "ulimit -v)"
                      : error.what());
  } catch (const std::bad_alloc&) {
    return report(qshard::ExitCode::out_of_resources, "out of memory; qshard plan shows what a run needs");
  }
}

}  // namespace

int main(int argc, char** argv) {
  qshard::prepare_standard_streams();
  try {
    CLI::App app("QShard: fine-tuning with 4-bit base weights sharded over ranks (FSDP-QLoRA)", "qshard");
    app.set_version_flag("--version", std::string("qshard ") + QSHARD_VERSION);
    app.require_subcommand(1);
    qshard::add_train_command(app);
    qshard::add_eval_command(app);
    qshard::add_generate_command(app);
    qshard::add_tokenize_command(app);
    qshard::add_plan_command(app);
    qshard::add_quantize_command(app);
    qshard::add_dequantize_command(app);
    qshard::add_merge_command(app);
    return parse_and_run(app, argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "qshard: error: %s\n", error.what());
    return static_cast<int>(qshard::ExitCode::bad_input);
  }
}
