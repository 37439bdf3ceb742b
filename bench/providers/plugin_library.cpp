#include "bench/providers/plugin_library.h"

#include <dlfcn.h>

#include "core/base/error.h"

namespace qshard::bench {

const qshard_provider& load_plugin(const std::string& path) {
  void* library =
      dlopen(path.find('/') == std::string::npos ? ("./" + path).c_str() : path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) fail_input("--plugin {}: cannot be loaded: {}", path, dlerror());
  const auto entry = reinterpret_cast<const qshard_provider* (*)()>(dlsym(library, "qshard_provider_v2"));
  if (entry == nullptr) {
    const bool is_older = dlsym(library, "qshard_provider_v1") != nullptr;
    fail_input("--plugin {}: {}; see bench/providers/qshard_provider.h", path,
               is_older ? "is made for version 1 of the interface, this program has version 2: prepare and run got a "
                          "state, and prepare all copies of the buffers"
                        : "does not export qshard_provider_v2");
  }
  const qshard_provider* table = entry();
  if (table == nullptr) fail_input("--plugin {}: qshard_provider_v2() returns null", path);
  if (table->abi != QSHARD_PROVIDER_ABI) {
    fail_input("--plugin {}: abi is {}, this program has {}; rebuild it with the present header", path, table->abi,
               QSHARD_PROVIDER_ABI);
  }
  if (table->name == nullptr || *table->name == '\0') fail_input("--plugin {}: has no name", path);
  if (std::string_view(table->name).find_first_of("/: \t\n") != std::string_view::npos) {
    fail_input("--plugin {}: its name '{}' would break a row's name; use letters, digits, - and _", path, table->name);
  }
  if (table->run == nullptr) fail_input("--plugin {}: {} has no run function", path, table->name);
  return *table;
}

}  // namespace qshard::bench
