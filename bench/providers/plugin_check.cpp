// qshard_plugin_check: what `qshard bench --plugin X --check` runs. Loads plug-ins and says for every row of the table
// whether they take it; needs neither a GPU nor a CUDA toolkit.
#include <cstdio>
#include <map>

#include <fmt/core.h>

#include "bench/gpu/options.h"
#include "bench/providers/plugin_library.h"
#include "core/base/error.h"

namespace qshard::bench {
namespace {

/// Prints a line for each problem; returns how many the plug-in takes.
int check(const std::string& path, const std::vector<qshard_problem>& problems) {
  const qshard_provider& table = load_plugin(path);
  fmt::print("{}: provider '{}', interface {}\n", path, table.name, table.abi);
  const auto has = [](bool present, const char* what) { return present ? "" : fmt::format(" no {};", what); };
  fmt::print("  functions:{}{}{}{}{} run\n", has(table.unsupported != nullptr, "unsupported (so every row is tried)"),
             has(table.workspace_bytes != nullptr, "workspace_bytes"), has(table.prepare != nullptr, "prepare"),
             has(table.finish != nullptr, "finish"), has(table.product_roundings != nullptr, "product_roundings"));
  int taken = 0;
  for (const qshard_problem& problem : problems) {
    const char* reason = table.unsupported == nullptr ? nullptr : table.unsupported(&problem);
    if (reason != nullptr) {
      fmt::print("  left out  {}: {}\n", problem_name(problem), reason);
      continue;
    }
    ++taken;
    const std::size_t workspace = table.workspace_bytes == nullptr ? 0 : table.workspace_bytes(&problem);
    fmt::print("  takes     {}{}\n", problem_name(problem),
               workspace == 0 ? "" : fmt::format(", workspace {} bytes", workspace));
  }
  fmt::print("  takes {} of {} rows; nothing was run\n", taken, problems.size());
  return taken;
}

int run(std::vector<std::string> arguments) {
  const std::optional<Options> options = parse_options(arguments);
  if (!options) return 0;
  if (options->plugins.empty()) fail_input("--check: give --plugin FILE");
  std::map<std::string, std::string> paths;  // by provider name
  bool all_take_a_row = true;
  for (const std::string& path : options->plugins) {
    const auto [place, is_new] = paths.emplace(load_plugin(path).name, path);
    if (!is_new) fail_input("--plugin {}: has the name '{}' of {}", path, place->first, place->second);
    all_take_a_row = check(path, problems_of(*options)) > 0 && all_take_a_row;
  }
  if (!all_take_a_row) fail(ExitCode::check_failed, "a plug-in takes no row of the table: check its axes");
  return 0;
}

}  // namespace
}  // namespace qshard::bench

int main(int argc, char** argv) {
  try {
    return qshard::bench::run({argv, argv + argc});
  } catch (const qshard::Error& error) {
    std::fflush(stdout);
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
