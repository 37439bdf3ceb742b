#include <dlfcn.h>

#include "bench/providers/provider.h"
#include "core/base/error.h"

namespace qshard::bench {
namespace {

void expect_success(const char* message, const std::string& name) {
  if (message != nullptr) fail(ExitCode::check_failed, "plug-in {}: {}", name, message);
}

/// A provider behind the C interface.
class PluginProvider : public Provider {
 public:
  explicit PluginProvider(const qshard_provider& table) : table_(table) {}

  [[nodiscard]] std::string name() const override { return table_.name; }

  [[nodiscard]] std::string unsupported(const qshard_problem& problem) const override {
    const char* reason = table_.unsupported == nullptr ? nullptr : table_.unsupported(&problem);
    return reason == nullptr ? "" : reason;
  }

  [[nodiscard]] std::size_t workspace_bytes(const qshard_problem& problem) const override {
    return table_.workspace_bytes == nullptr ? 0 : table_.workspace_bytes(&problem);
  }

  void prepare(const qshard_problem& problem, const qshard_buffers& buffers, cudaStream_t stream) override {
    if (table_.prepare != nullptr) expect_success(table_.prepare(&problem, &buffers, stream), name());
  }

  void run(const qshard_problem& problem, const qshard_buffers& buffers, cudaStream_t stream) override {
    expect_success(table_.run(&problem, &buffers, stream), name());
  }

  [[nodiscard]] int product_roundings(const qshard_problem& problem) const override {
    return table_.product_roundings == nullptr ? 0 : table_.product_roundings(&problem);
  }

 private:
  const qshard_provider& table_;
};

}  // namespace

std::unique_ptr<Provider> make_plugin_provider(const std::string& path) {
  // Never closed: its kernels and its table stay in use until the process ends.
  void* library =
      dlopen(path.find('/') == std::string::npos ? ("./" + path).c_str() : path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) fail_input("--plugin {}: cannot be loaded: {}", path, dlerror());
  const auto entry = reinterpret_cast<const qshard_provider* (*)()>(dlsym(library, "qshard_provider_v1"));
  if (entry == nullptr) {
    fail_input("--plugin {}: does not export qshard_provider_v1; see bench/providers/qshard_provider.h", path);
  }
  const qshard_provider* table = entry();
  if (table == nullptr || table->name == nullptr || table->run == nullptr) {
    fail_input("--plugin {}: qshard_provider_v1() gives no name or no run function", path);
  }
  if (table->abi != QSHARD_PROVIDER_ABI) {
    fail_input("--plugin {}: made for interface {}, this program has {}; rebuild it with the present header", path,
               table->abi, QSHARD_PROVIDER_ABI);
  }
  return std::make_unique<PluginProvider>(*table);
}

}  // namespace qshard::bench
