#include "core/base/stop_signal.h"

#include <array>
#include <csignal>

namespace qshard {
namespace {

constexpr std::array kSignals{SIGINT, SIGTERM};

volatile std::sig_atomic_t noted = 0;
std::array<struct sigaction, kSignals.size()> actions_before;

// SA_RESETHAND has given the signal its default action back, but not yet the other one.
void note(int signal) {
  noted = signal;
  for (const int other : kSignals) ::signal(other, SIG_DFL);
}

}  // namespace

StopSignal::StopSignal() {
  noted = 0;
  struct sigaction action {};
  action.sa_handler = note;
  action.sa_flags = SA_RESTART | SA_RESETHAND;
  for (std::size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &action, &actions_before[i]);
}

StopSignal::~StopSignal() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &actions_before[i], nullptr);
}

int StopSignal::received() {
  return noted;
}

}  // namespace qshard
