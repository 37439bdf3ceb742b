#include "bench/gpu/clocks.h"

#include <array>

#include <dlfcn.h>

namespace qshard::bench {
namespace {

// From NVML's reference: clock domains and clock event reasons.
constexpr int kClockSm = 1;
constexpr int kClockMemory = 2;
constexpr std::uint64_t kPowerCap = 0x4;
constexpr std::uint64_t kHardwareSlowdown = 0x8;
constexpr std::uint64_t kThermal = 0x20 | 0x40;
constexpr std::uint64_t kPowerBrake = 0x80;

template <typename Function>
void find(void* handle, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(handle, name));
}

}  // namespace

bool ClockSample::power_limited() const {
  return (slowdown_reasons & kPowerCap) != 0;
}

bool ClockSample::throttled() const {
  return (slowdown_reasons & (kHardwareSlowdown | kThermal | kPowerBrake)) != 0;
}

struct Clocks::Library {
  void* handle = nullptr;
  void* device = nullptr;
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*by_bus_id)(const char*, void**) = nullptr;
  int (*clock)(void*, int, unsigned*) = nullptr;
  int (*reasons)(void*, unsigned long long*) = nullptr;
  int (*driver)(char*, unsigned) = nullptr;
  int (*energy)(void*, unsigned long long*) = nullptr;  // may be missing
};

Clocks::Clocks(const std::string& pci_bus_id) {
  void* handle = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return;
  auto library = std::make_unique<Library>();
  library->handle = handle;
  find(handle, "nvmlInit_v2", library->init);
  find(handle, "nvmlShutdown", library->shutdown);
  find(handle, "nvmlDeviceGetHandleByPciBusId_v2", library->by_bus_id);
  find(handle, "nvmlDeviceGetClockInfo", library->clock);
  find(handle, "nvmlDeviceGetCurrentClocksThrottleReasons", library->reasons);
  find(handle, "nvmlSystemGetDriverVersion", library->driver);
  find(handle, "nvmlDeviceGetTotalEnergyConsumption", library->energy);
  const bool complete = library->init != nullptr && library->shutdown != nullptr && library->by_bus_id != nullptr &&
                        library->clock != nullptr && library->reasons != nullptr && library->driver != nullptr;
  if (!complete || library->init() != 0) {
    dlclose(handle);
    return;
  }
  if (library->by_bus_id(pci_bus_id.c_str(), &library->device) != 0) {
    library->shutdown();
    dlclose(handle);
    return;
  }
  library_ = std::move(library);
}

Clocks::~Clocks() {
  if (library_ == nullptr) return;
  library_->shutdown();
  dlclose(library_->handle);
}

bool Clocks::available() const {
  return library_ != nullptr;
}

ClockSample Clocks::sample() const {
  ClockSample sample;
  if (library_ == nullptr) return sample;
  unsigned long long reasons = 0;
  library_->clock(library_->device, kClockSm, &sample.sm_mhz);
  library_->clock(library_->device, kClockMemory, &sample.memory_mhz);
  library_->reasons(library_->device, &reasons);
  sample.slowdown_reasons = reasons;
  return sample;
}

double Clocks::joules() const {
  unsigned long long millijoules = 0;
  if (library_ == nullptr || library_->energy == nullptr) return 0;
  return library_->energy(library_->device, &millijoules) == 0 ? 1e-3 * static_cast<double>(millijoules) : 0;
}

std::string Clocks::driver_version() const {
  std::array<char, 96> version{};
  if (library_ == nullptr || library_->driver(version.data(), version.size()) != 0) return "";
  return version.data();
}

}  // namespace qshard::bench
