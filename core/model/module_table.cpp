#include "core/model/module_table.h"

#include <fmt/format.h>

namespace qshard {

std::vector<LinearModule> linear_modules(const ModelConfig& config) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t query = config.num_attention_heads * config.head_dim;
  const std::int64_t key_value = config.num_key_value_heads * config.head_dim;
  const std::vector<LinearModule> layer{
      {"self_attn.q_proj", query, hidden},
      {"self_attn.k_proj", key_value, hidden},
      {"self_attn.v_proj", key_value, hidden},
      {"self_attn.o_proj", hidden, query},
      {"mlp.gate_proj", config.intermediate_size, hidden},
      {"mlp.up_proj", config.intermediate_size, hidden},
      {"mlp.down_proj", hidden, config.intermediate_size},
  };
  std::vector<LinearModule> modules;
  modules.reserve(layer.size() * static_cast<std::size_t>(config.num_hidden_layers));
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    for (const LinearModule& module : layer) {
      modules.push_back({fmt::format("model.layers.{}.{}", i, module.name), module.out, module.in});
    }
  }
  return modules;
}

}  // namespace qshard
