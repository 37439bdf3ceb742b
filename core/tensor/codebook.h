#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string_view>

namespace qshard {

/// The two 4-bit codebooks of bitsandbytes.
enum class QuantType : std::uint8_t { nf4, fp4 };

/// "nf4" or "fp4".
std::string_view to_string(QuantType type);

/// The inverse; `where` names the file and key in the error. Throws Error(bad_input).
QuantType parse_quant_type(std::string_view name, std::string_view where);

/// Value of each code, as bitsandbytes' CUDA kernels hold them. NF4: quantiles of a normal distribution, scaled to
/// [-1, 1] (QLoRA, arXiv 2305.14314, appendix E). FP4: bit 3 is the sign (code 8 is -0), bits 0 to 2 choose a
/// magnitude.
inline constexpr std::array<float, 16> kNf4Values = std::bit_cast<std::array<float, 16>>(std::array<std::uint32_t, 16>{
    0xBF800000, 0xBF3239B1, 0xBF066B30, 0xBECA32A0, 0xBE91A24D, 0xBE3D353F, 0xBDBA7871, 0x00000000,  //
    0x3DA2FAFF, 0x3E24CAE3, 0x3E7C04DD, 0x3EAD033A, 0x3EE1A4B8, 0x3F1007AB, 0x3F3913B3, 0x3F800000});
inline constexpr std::array<float, 16> kFp4Values = std::bit_cast<std::array<float, 16>>(std::array<std::uint32_t, 16>{
    0x00000000, 0x3BAAAAAB, 0x3F2AAAAB, 0x3F800000, 0x3EAAAAAB, 0x3F000000, 0x3E2AAAAB, 0x3E800000,  //
    0x80000000, 0xBBAAAAAB, 0xBF2AAAAB, 0xBF800000, 0xBEAAAAAB, 0xBF000000, 0xBE2AAAAB, 0xBE800000});

constexpr const std::array<float, 16>& codebook(QuantType type) {
  return type == QuantType::nf4 ? kNf4Values : kFp4Values;
}

/// NF4 thresholds in ascending order: the code of x / absmax is the number of thresholds strictly below it. Four of
/// them differ by one ulp from the midpoint of their neighbours; these are the literals of the CUDA kernel.
inline constexpr std::array<float, 15> kNf4Thresholds =
    std::bit_cast<std::array<float, 15>>(std::array<std::uint32_t, 15>{
        0xBF591CD9, 0xBF1C5270, 0xBEEB8480, 0xBEADEA76, 0xBE703CEC, 0xBE0D38BC, 0xBD3A7871,  //
        0x3D22FAFF, 0x3DF64863, 0x3E5067E0, 0x3E9582D4, 0x3EC753F9, 0x3F006D03, 0x3F248DAF, 0x3F5C89D9});

/// FP4 thresholds on the magnitude in ascending order, and the code (without its sign bit) from each one on:
/// magnitude > kFp4Thresholds[i] gives kFp4Order[i + 1].
inline constexpr std::array<float, 7> kFp4Thresholds = {0.00260417F, 0.0859375F, 0.20833333F, 0.29166667F,
                                                        0.4166667F,  0.583333F,  0.8333333F};
inline constexpr std::array<std::uint8_t, 8> kFp4Order = {0, 1, 6, 7, 4, 5, 2, 3};

/// The signed dynamic map of 256 values in ascending order that nested absmax is quantized with; entry 127 is 0.
/// bitsandbytes' create_dynamic_map(signed=True) with fused multiply-add in linspace, as today's PyTorch builds give
/// it: the little-endian table's SHA-256 begins e732639a65f497b4. A checkpoint brings its own.
const std::array<float, 256>& dynamic_map();

/// The same without a sign, create_dynamic_map(signed=False): entry 0 is 0; the table's SHA-256 begins
/// 305f002cc11278fb. 8-bit AdamW keeps the mean square with it, and the mean with the signed map.
const std::array<float, 256>& unsigned_dynamic_map();

}  // namespace qshard
