#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace qshard {

/// Rank and alpha of one module; its scaling is alpha / r.
struct LoraModule {
  int r = 0;
  double alpha = 0;
};

/// How a new adapter's A [r, in] begins, by PEFT's init_lora_weights; B begins at zero.
enum class LoraStart : std::uint8_t {
  uniform,   // true: in +-1 / sqrt(in)
  gaussian,  // "gaussian": normal with a standard deviation of 1 / r
};

struct LoraOptions {
  int r = 16;
  double alpha = 32;
  double dropout = 0.0;
  LoraStart start = LoraStart::uniform;
  std::vector<std::string> target_modules{"all-linear"};   // all-linear leaves the output head out
  std::map<std::string, LoraModule, std::less<>> modules;  // by full name: modules with another rank or alpha
  bool use_dora = false;                                   // a trained magnitude for each output
  bool lora_bias = false;                                  // a trained bias after B
  std::vector<std::string> modules_to_save;                // trained whole: of embed_tokens and lm_head

  [[nodiscard]] bool trains_embedding() const { return trains("embed_tokens"); }
  [[nodiscard]] bool trains_head() const { return trains("lm_head"); }
  /// True where every adapter is A and B alone, and nothing else is trained.
  [[nodiscard]] bool is_plain() const { return !use_dora && !lora_bias && modules_to_save.empty(); }

  [[nodiscard]] LoraModule module(std::string_view name) const {
    const auto found = modules.find(name);
    return found == modules.end() ? LoraModule{r, alpha} : found->second;
  }

 private:
  [[nodiscard]] bool trains(std::string_view name) const {
    return std::find(modules_to_save.begin(), modules_to_save.end(), name) != modules_to_save.end();
  }
};

}  // namespace qshard
