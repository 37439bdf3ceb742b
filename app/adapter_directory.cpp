#include "app/adapter_directory.h"

#include <algorithm>

#include "core/formats/peft_adapter.h"
#include "core/formats/tokenizer_files.h"

namespace qshard {
namespace {

namespace fs = std::filesystem;

bool is_hub_name(const std::string& name) {
  const bool has_form = std::ranges::count(name, '/') == 1 && name.front() != '/' && name.front() != '.' &&
                        name.front() != '~' && name.back() != '/';
  return has_form && !fs::exists(name);
}

}  // namespace

std::string base_model_name(const std::string& model, const std::optional<AdapterConfig>& started_from) {
  const std::string given = started_from ? started_from->base_model_name_or_path.value_or("") : "";
  if (!given.empty() && is_hub_name(given)) return given;
  const fs::path path = fs::absolute(model).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).string();
}

void save_adapter_directory(const fs::path& directory, const AdapterConfig& config, const NamedTensors& tensors,
                            const fs::path& model) {
  write_adapter(directory, config, tensors);
  copy_tokenizer_files(model, directory);
}

}  // namespace qshard
