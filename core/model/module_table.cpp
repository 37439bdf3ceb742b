#include "core/model/module_table.h"

#include <utility>

#include <fmt/format.h>

namespace qshard {

std::array<LinearModule, kProjections> layer_modules(const ModelConfig& config) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t inner = config.intermediate_size;
  const std::int64_t query = config.num_attention_heads * config.head_dim;
  const std::int64_t key_value = config.num_key_value_heads * config.head_dim;
  return {{
      {"self_attn.q_proj", query, hidden, config.qkv_bias, Projection::q},
      {"self_attn.k_proj", key_value, hidden, config.qkv_bias, Projection::k},
      {"self_attn.v_proj", key_value, hidden, config.qkv_bias, Projection::v},
      {"self_attn.o_proj", hidden, query, config.o_bias, Projection::o},
      {"mlp.gate_proj", inner, hidden, config.mlp_bias, Projection::gate},
      {"mlp.up_proj", inner, hidden, config.mlp_bias, Projection::up},
      {"mlp.down_proj", hidden, inner, config.mlp_bias, Projection::down},
  }};
}

std::vector<LinearModule> linear_modules(const ModelConfig& config) {
  const auto table = layer_modules(config);
  std::vector<LinearModule> modules;
  modules.reserve(table.size() * static_cast<std::size_t>(config.num_hidden_layers));
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    for (LinearModule module : table) {
      module.name = module_path(layer, module.name);
      modules.push_back(std::move(module));
    }
  }
  return modules;
}

std::string_view module_name(Projection role) {
  static const auto table = layer_modules(ModelConfig{});
  return table[static_cast<std::size_t>(role)].name;
}

std::string module_path(std::int64_t layer, std::string_view module) {
  return fmt::format("model.layers.{}.{}", layer, module);
}

}  // namespace qshard
