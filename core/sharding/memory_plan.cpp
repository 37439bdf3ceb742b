#include "core/sharding/memory_plan.h"

#include <fmt/format.h>

#include "core/base/progress.h"

namespace qshard {

namespace {

std::string text_of(std::int64_t bytes) {
  return format_bytes(static_cast<double>(bytes));
}

std::string describe(const MemoryChoice& choice) {
  std::string text = choice.kept_layers == 0 ? "activations made again in the backward pass"
                                             : fmt::format("activations of {} {} kept", choice.kept_layers,
                                                           choice.kept_layers == 1 ? "layer" : "layers");
  return text + (choice.inputs_on_host ? ", layers' inputs on the host" : "");
}

std::string line(const char* name, const MemoryPlan& plan, std::int64_t outside) {
  const std::string host = plan.host_bytes > 0 ? fmt::format(", {} of host memory", text_of(plan.host_bytes)) : "";
  return fmt::format("  {:<14}{:>10}  {}{}\n", name, text_of(plan.device_bytes() + outside), describe(plan.choice),
                     host);
}

}  // namespace

std::string describe(const MemoryPlans& plans, std::int64_t budget) {
  std::string text = line("at least", plans.smallest, plans.outside);
  text += line("at most", plans.fastest, plans.outside);
  if (budget > 0) {
    text += plans.within_budget
                ? line("this run", *plans.within_budget, plans.outside)
                : fmt::format("  {} are too little, by {}; what would make the run smaller:{}\n", text_of(budget),
                              text_of(plans.smallest.device_bytes() + plans.outside - budget), plans.remedies);
  }
  const MemoryPlan& shown = plans.within_budget ? *plans.within_budget : plans.smallest;
  text +=
      fmt::format("  {} at its peak, in the {}:\n", plans.within_budget ? "this run" : "the smallest", shown.peak_in);
  for (const MemoryUse& use : shown.at_peak) text += fmt::format("    {:<26}{:>10}\n", use.name, text_of(use.bytes));
  if (shown.table_bytes > 0) {
    text += fmt::format("    {:<26}{:>10}  (of pinned host memory)\n", "page tables", text_of(shown.table_bytes));
  }
  return text + fmt::format("    {:<26}{:>10}  (measured on H100 and H200, driver 580)\n", "context and libraries",
                            text_of(plans.outside));
}

}  // namespace qshard
