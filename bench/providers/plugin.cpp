#include "bench/providers/plugin_library.h"
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

  void prepare(const qshard_problem& problem, std::span<const qshard_buffers> buffers, cudaStream_t stream) override {
    state_ = nullptr;
    if (table_.prepare == nullptr) return;
    const auto copies = static_cast<std::int32_t>(buffers.size());
    expect_success(table_.prepare(&problem, buffers.data(), copies, stream, &state_), name());
  }

  void run(const qshard_problem& problem, const qshard_buffers& buffers, cudaStream_t stream) override {
    expect_success(table_.run(&problem, &buffers, stream, state_), name());
  }

  void finish() override {
    if (table_.finish != nullptr) table_.finish(state_);
    state_ = nullptr;
  }

  [[nodiscard]] int product_roundings(const qshard_problem& problem) const override {
    return table_.product_roundings == nullptr ? 0 : table_.product_roundings(&problem);
  }

 private:
  const qshard_provider& table_;
  void* state_ = nullptr;  // of the row at hand
};

}  // namespace

std::unique_ptr<Provider> make_plugin_provider(const std::string& path) {
  return std::make_unique<PluginProvider>(load_plugin(path));
}

}  // namespace qshard::bench
