// Listens to NVTX (NVTX_INJECTION64_PATH) and kills the process that loads it, as kill -9 does, in a named range:
//   QSHARD_KILL_RANGE   the range's name, as "gather"
//   QSHARD_KILL_RANK    only where QSHARD_RANK is this
//   QSHARD_KILL_COUNT   the how manyth of these ranges, from 1
//   QSHARD_KILL_DELAY   microseconds from the range's beginning
// The moment is written to stderr. correctness/gpu/kill_ranges uses it.
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <nvtx3/nvToolsExt.h>
#include <unistd.h>

namespace {

const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void kill_now(const char* range) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  std::fprintf(stderr, "kill_in_range: rank %s in %s at %.3f\n", variable("QSHARD_RANK"), range, now.count());
  std::fflush(stderr);
  ::kill(::getpid(), SIGKILL);
}

int begin_range(const char* name) {
  static std::atomic<long> count{0};
  static const char* const wanted = variable("QSHARD_KILL_RANGE");
  static const bool is_rank = std::strcmp(variable("QSHARD_RANK"), variable("QSHARD_KILL_RANK")) == 0;
  static const long at = std::atol(variable("QSHARD_KILL_COUNT"));
  if (!is_rank || std::strcmp(name, wanted) != 0 || ++count != at) return 0;
  const std::chrono::microseconds delay(std::atol(variable("QSHARD_KILL_DELAY")));
  if (delay.count() == 0) kill_now(wanted);
  std::thread([delay] {
    std::this_thread::sleep_for(delay);
    kill_now(wanted);
  }).detach();
  return 0;
}

}  // namespace

extern "C" int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table) {
  const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(get_table(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable functions = nullptr;
  unsigned count = 0;
  if (callbacks == nullptr || callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &functions, &count) == 0) return 0;
  if (count <= NVTX_CBID_CORE_RangePushA) return 0;
  *functions[NVTX_CBID_CORE_RangePushA] = reinterpret_cast<NvtxFunctionPointer>(&begin_range);
  return 1;
}
