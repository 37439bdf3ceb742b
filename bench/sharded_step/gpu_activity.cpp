#include "bench/sharded_step/gpu_activity.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <utility>

#include <cxxabi.h>
#include <dlfcn.h>

#include "core/base/error.h"

#if QSHARD_HAS_CUPTI
#include <cupti.h>
#endif

namespace qshard::bench {

namespace {

/// "void a::b<int>(c)" and "a::b(c)" become "a::b"; what is not mangled stays.
std::string short_name(const std::string& mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> readable(abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status),
                                                        std::free);
  if (readable == nullptr) return mangled;
  std::string text = readable.get();
  const std::string_view anonymous = "(anonymous namespace)::";
  for (std::size_t at = text.find(anonymous); at != std::string::npos; at = text.find(anonymous)) {
    text.erase(at, anonymous.size());
  }
  text.resize(std::min(text.size(), text.find_first_of("<(")));
  return text.substr(text.rfind(' ') + 1);
}

}  // namespace

std::vector<NamedTime> times_by_name(const TimeSpan& window, std::vector<TimeSpan> busy) {
  std::ranges::sort(busy, {}, &TimeSpan::end);
  std::vector<NamedTime> times;
  const auto count = [&](const std::string& name, std::uint64_t nanoseconds) {
    auto found = std::ranges::find(times, name, &NamedTime::name);
    if (found == times.end()) found = times.insert(found, {name, 0, 0.0});
    ++found->count;
    found->seconds += static_cast<double>(nanoseconds) * 1e-9;
  };
  std::uint64_t reached = window.begin;
  for (const TimeSpan& span : busy) {
    if (span.end <= reached || span.begin >= window.end) continue;
    if (span.begin > reached) {
      count("idle", span.begin - reached);
      reached = span.begin;
    }
    count(short_name(span.name), span.end - reached);
    reached = span.end;
  }
  std::ranges::sort(times, std::ranges::greater{}, &NamedTime::seconds);
  return times;
}

nlohmann::json kernel_times(const TimeSpan& window, std::vector<TimeSpan> busy, int count) {
  nlohmann::json times = nlohmann::json::array();
  for (const NamedTime& time : times_by_name(window, std::move(busy))) {
    times.push_back({{"name", time.name},
                     {"launches", static_cast<double>(time.count) / count},
                     {"microseconds", time.seconds * 1e6 / count}});
  }
  return times;
}

double idle_fraction(TimeSpan window, std::vector<TimeSpan> busy) {
  std::ranges::sort(busy, {}, &TimeSpan::begin);
  std::uint64_t idle = 0;
  std::uint64_t reached = window.begin;
  for (const TimeSpan& span : busy) {
    const std::uint64_t begin = std::clamp(span.begin, window.begin, window.end);
    if (begin > reached) idle += begin - reached;
    reached = std::max(reached, std::clamp(span.end, window.begin, window.end));
  }
  idle += window.end - reached;
  return static_cast<double>(idle) / static_cast<double>(window.end - window.begin);
}

#if QSHARD_HAS_CUPTI

namespace {

constexpr std::size_t kBufferBytes = std::size_t{8} << 20;
constexpr CUpti_ActivityKind kKinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
                                         CUPTI_ACTIVITY_KIND_MEMCPY2, CUPTI_ACTIVITY_KIND_MEMSET};

template <typename Function>
Function* load(void* library, const char* name) {
  auto* function = reinterpret_cast<Function*>(dlsym(library, name));
  if (function == nullptr) fail_input("CUPTI: libcupti has no {}", name);
  return function;
}

/// What is used of CUPTI.
struct Cupti {
  void* library = nullptr;
  decltype(cuptiActivityRegisterCallbacks)* register_callbacks = nullptr;
  decltype(cuptiActivityEnable)* enable = nullptr;
  decltype(cuptiActivityDisable)* disable = nullptr;
  decltype(cuptiActivityFlushAll)* flush_all = nullptr;
  decltype(cuptiActivityGetNextRecord)* next_record = nullptr;
  decltype(cuptiGetTimestamp)* timestamp = nullptr;

  Cupti() {
    for (const char* name : {"libcupti.so.13", "libcupti.so.12", "libcupti.so"}) {
      library = dlopen(name, RTLD_NOW);
      if (library != nullptr) break;
    }
    if (library == nullptr) fail_input("CUPTI: {}; put the folder of libcupti on LD_LIBRARY_PATH", dlerror());
    register_callbacks = load<decltype(cuptiActivityRegisterCallbacks)>(library, "cuptiActivityRegisterCallbacks");
    enable = load<decltype(cuptiActivityEnable)>(library, "cuptiActivityEnable");
    disable = load<decltype(cuptiActivityDisable)>(library, "cuptiActivityDisable");
    flush_all = load<decltype(cuptiActivityFlushAll)>(library, "cuptiActivityFlushAll");
    next_record = load<decltype(cuptiActivityGetNextRecord)>(library, "cuptiActivityGetNextRecord");
    timestamp = load<decltype(cuptiGetTimestamp)>(library, "cuptiGetTimestamp");
  }
};

const Cupti& cupti() {
  static const Cupti library;
  return library;
}

void check(CUptiResult result, const char* what) {
  if (result != CUPTI_SUCCESS) fail_input("CUPTI: CUPTI refuses {} (error {})", what, static_cast<int>(result));
}

std::mutex mutex;  // of what CUPTI's thread adds
std::vector<TimeSpan> spans;

void CUPTIAPI give_buffer(std::uint8_t** buffer, std::size_t* bytes, std::size_t* most_records) {
  *bytes = kBufferBytes;
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(ACTIVITY_RECORD_ALIGNMENT, kBufferBytes));
  *most_records = 0;  // as many as fit
}

void CUPTIAPI take_buffer(CUcontext /*context*/, std::uint32_t /*stream*/, std::uint8_t* buffer, std::size_t /*bytes*/,
                          std::size_t valid_bytes) {
  const std::scoped_lock lock(mutex);
  CUpti_Activity* record = nullptr;
  while (cupti().next_record(buffer, valid_bytes, &record) == CUPTI_SUCCESS) {
    switch (record->kind) {
      case CUPTI_ACTIVITY_KIND_KERNEL:
      case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
        const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel10*>(record);
        spans.push_back({kernel->start, kernel->end, kernel->name});
        break;
      }
      case CUPTI_ACTIVITY_KIND_MEMCPY: {
        const auto* copy = reinterpret_cast<const CUpti_ActivityMemcpy6*>(record);
        spans.push_back({copy->start, copy->end, "copy"});
        break;
      }
      case CUPTI_ACTIVITY_KIND_MEMCPY2: {
        const auto* copy = reinterpret_cast<const CUpti_ActivityMemcpyPtoP4*>(record);
        spans.push_back({copy->start, copy->end, "copy"});
        break;
      }
      case CUPTI_ACTIVITY_KIND_MEMSET: {
        const auto* set = reinterpret_cast<const CUpti_ActivityMemset4*>(record);
        spans.push_back({set->start, set->end, "memset"});
        break;
      }
      default:
        break;
    }
  }
  std::free(buffer);
}

}  // namespace

GpuActivity::GpuActivity() {
  check(cupti().register_callbacks(give_buffer, take_buffer), "callbacks");
  for (const CUpti_ActivityKind kind : kKinds) check(cupti().enable(kind), "a kind of activity");
}

GpuActivity::~GpuActivity() {
  for (const CUpti_ActivityKind kind : kKinds) cupti().disable(kind);
}

std::uint64_t GpuActivity::now() const {
  std::uint64_t time = 0;
  check(cupti().timestamp(&time), "a timestamp");
  return time;
}

std::vector<TimeSpan> GpuActivity::busy() const {
  check(cupti().flush_all(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED), "to flush its records");
  const std::scoped_lock lock(mutex);
  return spans;
}

#else

GpuActivity::GpuActivity() {
  fail_input("this program was built without CUPTI's headers; install them with the CUDA toolkit");
}
GpuActivity::~GpuActivity() = default;
std::uint64_t GpuActivity::now() const {
  return 0;
}
std::vector<TimeSpan> GpuActivity::busy() const {
  return {};
}

#endif

}  // namespace qshard::bench
