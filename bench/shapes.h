#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace qshard::bench {

/// A linear layer's weight, [n, k]: n output features, k input features.
struct LinearShape {
  std::int64_t n;
  std::int64_t k;
};

/// The linear layers of a model's decoder layer (the head left out).
struct ModelShapes {
  std::string_view model;
  std::array<LinearShape, 5> layers;  // q; k and v; o; gate and up; down
};

/// From the models' config.json: hidden_size, num_attention_heads and num_key_value_heads * head_dim,
/// intermediate_size.
inline constexpr std::array<ModelShapes, 10> kModelShapes = {{
    {"llama-2-7b", {{{4096, 4096}, {4096, 4096}, {4096, 4096}, {11008, 4096}, {4096, 11008}}}},
    {"llama-2-13b", {{{5120, 5120}, {5120, 5120}, {5120, 5120}, {13824, 5120}, {5120, 13824}}}},
    {"llama-2-70b", {{{8192, 8192}, {1024, 8192}, {8192, 8192}, {28672, 8192}, {8192, 28672}}}},
    {"llama-3-8b", {{{4096, 4096}, {1024, 4096}, {4096, 4096}, {14336, 4096}, {4096, 14336}}}},
    {"mistral-7b", {{{4096, 4096}, {1024, 4096}, {4096, 4096}, {14336, 4096}, {4096, 14336}}}},
    {"qwen2.5-7b", {{{3584, 3584}, {512, 3584}, {3584, 3584}, {18944, 3584}, {3584, 18944}}}},
    {"qwen2.5-32b", {{{5120, 5120}, {1024, 5120}, {5120, 5120}, {27648, 5120}, {5120, 27648}}}},
    {"qwen2.5-72b", {{{8192, 8192}, {1024, 8192}, {8192, 8192}, {29568, 8192}, {8192, 29568}}}},
    {"qwen3-8b", {{{4096, 4096}, {1024, 4096}, {4096, 4096}, {12288, 4096}, {4096, 12288}}}},
    {"qwen3-32b", {{{8192, 5120}, {1024, 5120}, {5120, 8192}, {25600, 5120}, {5120, 25600}}}},
}};

}  // namespace qshard::bench
