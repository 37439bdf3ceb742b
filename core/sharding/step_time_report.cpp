#include "core/sharding/step_time_report.h"

#include <cmath>

#include <fmt/format.h>

namespace qshard {

namespace {

std::string share_lines(const std::vector<TimePart>& parts, double whole) {
  std::string text;
  for (const TimePart& part : parts) {
    if (part.seconds <= 0) continue;
    text +=
        fmt::format("    {:<30}{:>10.1f} ms {:>6.1f} %\n", part.name, part.seconds * 1e3, 100 * part.seconds / whole);
  }
  return text;
}

std::string describe_gathers(const StepTime& step) {
  if (step.timeline.gathering == 0) return "  nothing is gathered\n";
  return fmt::format("  gathers take {:.1f} ms of the link's time, {:.0f} % of it beside arithmetic{}\n",
                     step.timeline.gathering * 1e3, 100 * step.hidden_share(),
                     step.hidden_share() > 0.95 ? ": hidden" : "");
}

std::string describe_pipeline(const StepWork& work, const DeviceNumbers& numbers, double seconds) {
  const double pipeline = pipeline_seconds(work, numbers);
  if (pipeline == 0) return "";
  const double share = pipeline_link_share(work, numbers);
  const std::string when = share > 0 && std::isfinite(share)
                               ? fmt::format("; it would be over a link of less than {:.2g} of this one's rate", share)
                               : "";
  return fmt::format(
      "  a pipeline of layers over the same {} GPUs, without gathers but with a bubble: {:.3f} s, {}{}\n", work.ranks,
      pipeline, pipeline < seconds ? "faster" : "not faster", when);
}

}  // namespace

std::string describe(const StepWork& work, const DeviceNumbers& numbers) {
  const StepTime step = predict_step(work, numbers);
  const std::string groups = work.groups > 1 ? fmt::format(" in each of {} groups (HYBRID_SHARD)", work.groups) : "";
  std::string text = fmt::format(
      "Step time, predicted for {} over {}, {} GPU{}{}: {:.3f} s, {:.0f} tokens/s\n"
      "  from {:.0f} TFLOP/s of products, {:.2f} TB/s of memory, {:.0f} GB/s from peers, {:.0f} from other machines, "
      "{:.0f} from host memory\n"
      "  (--gpu, --link and --product-rate to --host-rate change them; see plan --help)\n",
      numbers.gpu, numbers.link, work.ranks, work.ranks == 1 ? "" : "s", groups, step.seconds, step.tokens_per_second,
      numbers.product_rate / 1e12, numbers.memory_rate / 1e12, numbers.peer_rate / 1e9, numbers.network_rate / 1e9,
      numbers.host_rate / 1e9);
  text += fmt::format("  activations of {} of {} layers kept{}:\n", work.choice.kept_layers,
                      work.model.num_hidden_layers, work.choice.inputs_on_host ? ", layers' inputs on the host" : "");
  text += share_lines(step.parts, step.seconds);
  text += "  the arithmetic by what it does:\n" + share_lines(step.kinds, step.seconds);
  text += describe_gathers(step);
  text += "  tokens a second and GPU, were one thing changed, memory allowing:\n";
  for (const StepKnob& knob : try_knobs(work, numbers)) {
    text += fmt::format("    {:<44}{:>+7.1f} %\n", knob.change, 100 * knob.gain);
  }
  return text + describe_pipeline(work, numbers, step.seconds);
}

}  // namespace qshard
