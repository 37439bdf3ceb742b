#include "bench/gpu/table.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace qshard::bench {
namespace {

using Rows = std::vector<std::unique_ptr<Row>>;

bool done(const Row& row) {
  return row.error.empty() && !row.samples().empty();
}

/// Every provider with a finished row, in order of appearance.
std::vector<std::string> providers_of(const Rows& rows) {
  std::vector<std::string> names;
  for (const auto& row : rows) {
    if (done(*row) && std::find(names.begin(), names.end(), row->provider()) == names.end()) {
      names.push_back(row->provider());
    }
  }
  return names;
}

std::string ratio_cell(const Rows& rows, const Row& row, const std::string& provider) {
  for (const auto& other : rows) {
    if (other->provider() != provider || other->group() != row.group() || !done(*other)) continue;
    return fmt::format("{:.3f}", row.median_seconds() / other->median_seconds());
  }
  return "-";
}

std::string time_cell(double seconds) {
  return seconds < 1e-3 ? fmt::format("{:.2f} us", 1e6 * seconds) : fmt::format("{:.3f} ms", 1e3 * seconds);
}

std::string format_row(const Rows& rows, const Row& row, const Ceilings& ceilings,
                       const std::vector<std::string>& providers) {
  std::string line = fmt::format("| {} | {} |", row.group(), row.provider());
  if (!row.error.empty()) return line + fmt::format(" failed: {} |\n", row.error);
  const double seconds = row.median_seconds();
  const Traffic traffic = row.traffic();
  const double bandwidth = traffic.bytes() / seconds;
  line +=
      fmt::format(" {} | {:.0f} | {:.1f} % |", time_cell(seconds), bandwidth * 1e-9, 100 * bandwidth / ceilings.copy);
  if (traffic.flops > 0) {
    const double rate = traffic.flops / seconds;
    line += fmt::format(" {:.4g} | {} |", rate * 1e-12,
                        ceilings.product > 0 ? fmt::format("{:.1f} %", 100 * rate / ceilings.product) : "-");
  } else {
    line += " - | - |";
  }
  for (const std::string& provider : providers) line += fmt::format(" {} |", ratio_cell(rows, row, provider));
  return line + "\n";
}

}  // namespace

std::string format_table(const Rows& rows, const Ceilings& ceilings) {
  const std::vector<std::string> providers = providers_of(rows);
  std::string table = "| problem | provider | time | GB/s | of copy | TFLOP/s | of product |";
  std::string rule = "| --- | --- | ---: | ---: | ---: | ---: | ---: |";
  for (const std::string& provider : providers) {
    table += fmt::format(" time / {} |", provider);
    rule += " ---: |";
  }
  table += "\n" + rule + "\n";
  for (const auto& row : rows) {
    if (done(*row) || !row->error.empty()) table += format_row(rows, *row, ceilings, providers);
  }
  return table;
}

}  // namespace qshard::bench
