#pragma once

namespace qshard {

/// While it lives, the first Ctrl-C (SIGINT) or SIGTERM is only noted, so that the work in hand can be brought to an
/// end; the second one ends the process at once, as does either of them without such an object. One at a time.
class StopSignal {
 public:
  StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;
  ~StopSignal();

  /// The signal that came, or 0.
  [[nodiscard]] static int received();
};

/// What a process that was ended by `signal` returns: 130 for Ctrl-C, 143 for SIGTERM.
constexpr int exit_code_of_signal(int signal) {
  constexpr int kBase = 128;
  return kBase + signal;
}

}  // namespace qshard
