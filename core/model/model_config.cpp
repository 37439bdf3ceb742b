#include "core/model/model_config.h"

#include <array>

namespace qshard {

std::string_view to_string(ModelFamily family) {
  static constexpr std::array<std::string_view, 4> kNames{"llama", "mistral", "qwen2", "qwen3"};
  return kNames[static_cast<std::size_t>(family)];
}

std::int64_t ModelConfig::window(std::int64_t layer) const {
  const bool has_window = layer_has_window.empty() || layer_has_window[static_cast<std::size_t>(layer)];
  return has_window ? sliding_window : 0;
}

}  // namespace qshard
