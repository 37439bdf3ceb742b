#pragma once

#include <bit>
#include <cstdint>

namespace qshard {

/// bfloat16 and IEEE binary16 as storage: conversion is all they do. From float: round to nearest, ties to even; every
/// NaN becomes 0x7FFF (what the GPU's cvt.rn gives); float16 overflows to infinity and keeps its subnormals.
/// To float: exact.
struct bfloat16 {
  std::uint16_t bits;
};
struct float16 {
  std::uint16_t bits;
};

inline float to_float(float value) {
  return value;
}

inline float to_float(bfloat16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

inline float to_float(float16 value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000U) << 16;
  const std::uint32_t exponent = (value.bits >> 10) & 0x1FU;
  const std::uint32_t mantissa = value.bits & 0x3FFU;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;  // zero and subnormals
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  const std::uint32_t rebiased = exponent == 0x1F ? 0xFFU : exponent + (127 - 15);
  return std::bit_cast<float>(sign | rebiased << 23 | mantissa << 13);
}

template <typename T>
T from_float(float value);

template <>
inline float from_float<float>(float value) {
  return value;
}

template <>
inline bfloat16 from_float<bfloat16>(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return {0x7FFF};
  const std::uint32_t rounding = 0x7FFFU + (bits >> 16 & 1U);
  return {static_cast<std::uint16_t>((bits + rounding) >> 16)};
}

template <>
inline float16 from_float<float16>(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return {0x7FFF};
  if (magnitude >= 0x477FF000U) return {static_cast<std::uint16_t>(sign | 0x7C00U)};  // rounds past 65504
  if (magnitude < 0x38800000U) {
    // Below the smallest normal 2^-14: adding 0.5 leaves units of 2^-24 in the mantissa, rounded by the addition
    // itself.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    const auto mantissa = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(shifted) & 0x7FFU);
    return {static_cast<std::uint16_t>(sign | mantissa)};
  }
  const std::uint32_t rebiased = magnitude - ((127U - 15U) << 23);
  const std::uint32_t rounding = 0xFFFU + (rebiased >> 13 & 1U);
  return {static_cast<std::uint16_t>(sign | (rebiased + rounding) >> 13)};
}

}  // namespace qshard
