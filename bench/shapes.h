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

/// The different linear layers of a model's decoder layer (the head and repeats of a shape left out).
struct ModelShapes {
  std::string_view model;
  std::array<LinearShape, 4> layers;  // q and o; k and v; gate and up; down
};

/// From the models' config.json: hidden_size, num_key_value_heads * head_dim, intermediate_size.
inline constexpr std::array<ModelShapes, 4> kModelShapes = {{
    {"llama-2-7b", {{{4096, 4096}, {4096, 4096}, {11008, 4096}, {4096, 11008}}}},
    {"llama-2-13b", {{{5120, 5120}, {5120, 5120}, {13824, 5120}, {5120, 13824}}}},
    {"llama-2-70b", {{{8192, 8192}, {1024, 8192}, {28672, 8192}, {8192, 28672}}}},
    {"llama-3-8b", {{{4096, 4096}, {1024, 4096}, {14336, 4096}, {4096, 14336}}}},
}};

}  // namespace qshard::bench
