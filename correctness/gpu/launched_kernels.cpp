// Preloaded (LD_PRELOAD) into a program, it appends at the program's end to the file QSHARD_KERNELS_FILE a line for
// each of the program's kernels: "launched" or "registered" (never launched), and its name. correctness/gpu/sanitize
// uses it to show that what it runs reaches every kernel.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <regex>
#include <set>
#include <string>

#include <cuda_runtime_api.h>
#include <cxxabi.h>
#include <dlfcn.h>

namespace {

/// nvcc names local kernels after their file.
std::string file_of(const std::string& mangled) {
  static const std::regex local("_GLOBAL__N__[0-9a-f]+_[0-9]+_(\\w+?)_cu_");
  std::smatch found;
  return std::regex_search(mangled, found, local) ? found[1].str() : "-";
}

class Kernels {
 public:
  static Kernels& instance() {
    static Kernels kernels;
    return kernels;
  }

  ~Kernels() {
    const char* path = std::getenv("QSHARD_KERNELS_FILE");
    std::FILE* file = path == nullptr ? nullptr : std::fopen(path, "a");
    if (file == nullptr) return;
    for (const auto& [function, name] : names_) {
      int status = 0;
      const std::unique_ptr<char, decltype(&std::free)> readable(
          abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), &std::free);
      std::fprintf(file, "%s %s %s\n", launched_.contains(function) ? "launched" : "registered", file_of(name).c_str(),
                   status == 0 ? readable.get() : name.c_str());
    }
    std::fclose(file);
  }

  void add(const void* function, const char* name) {
    const std::scoped_lock lock(mutex_);
    names_[function] = name;
  }

  void launch(const void* function) {
    const std::scoped_lock lock(mutex_);
    launched_.insert(function);
  }

 private:
  std::mutex mutex_;
  std::map<const void*, std::string> names_;  // by the address of the host's function
  std::set<const void*> launched_;
};

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

// What nvcc's code and the runtime's templates call, under the names that libcudart has for it.
extern "C" {

void __cudaRegisterFunction(void** module, const char* function, char* device_function, const char* name, int threads,
                            uint3* thread, uint3* block, dim3* block_size, dim3* grid_size, int* warp_size) {
  Kernels::instance().add(function, name);
  static auto* const real = next<decltype(__cudaRegisterFunction)>("__cudaRegisterFunction");
  real(module, function, device_function, name, threads, thread, block, block_size, grid_size, warp_size);
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  Kernels::instance().launch(function);
  static auto* const real = next<decltype(__cudaGetKernel)>("__cudaGetKernel");
  return real(kernel, function);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  Kernels::instance().launch(function);
  static auto* const real = next<decltype(cudaLaunchKernelExC)>("cudaLaunchKernelExC");
  return real(config, function, arguments);
}
}
