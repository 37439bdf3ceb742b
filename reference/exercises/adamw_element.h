#pragma once

#include <cmath>

/// Exercise 8 (20 minutes; read reference/adamw.h). One AdamW step of one parameter in float, in this order:
///   p <- p (1 - lr * weight_decay);  m <- m + (1 - beta1) (g - m);  v <- beta2 v + (1 - beta2) g g
///   p <- p - lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + epsilon)
struct Element {
  float p = 0.0F;
  float m = 0.0F;
  float v = 0.0F;
};

inline Element adamw_element(Element e, float g, double lr, double weight_decay, double beta1, double beta2,
                             double epsilon, int step) {
  // The gap: replace this line.
  return {static_cast<float>(e.p - lr * g + 0 * (weight_decay + beta1 + beta2 + epsilon + step)), e.m, e.v};
}
