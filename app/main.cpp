#include <cstdio>
#include <new>

#include "app/commands.h"
#include "core/error.h"

namespace {

int report(qshard::ExitCode code, std::string_view message) {
  fmt::print(stderr, "qshard: error: {}\n", message);
  return static_cast<int>(code);
}

int parse_and_run(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& wanted) {  // --help, --version
    return app.exit(wanted);
  } catch (const CLI::ParseError& error) {
    return report(qshard::ExitCode::bad_input,
                  fmt::format("{}\nSee qshard --help or qshard COMMAND --help.", error.what()));
  } catch (const qshard::Error& error) {
    return report(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return report(qshard::ExitCode::out_of_resources, "out of memory; qshard plan shows what a run needs");
  } catch (const std::filesystem::filesystem_error& error) {
    return report(qshard::ExitCode::bad_input, error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("QShard: fine-tuning with 4-bit base weights sharded over ranks (FSDP-QLoRA)", "qshard");
  app.set_version_flag("--version", std::string("qshard ") + QSHARD_VERSION);
  app.require_subcommand(1);
  qshard::add_quantize_command(app);
  qshard::add_dequantize_command(app);
  return parse_and_run(app, argc, argv);
}
