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
  e.p = static_cast<float>(e.p * (1 - lr * weight_decay));
  e.m = static_cast<float>(e.m + (1 - beta1) * (g - e.m));
  e.v = static_cast<float>(beta2 * e.v + (1 - beta2) * g * g);
  const double root = std::sqrt(e.v) / std::sqrt(1 - std::pow(beta2, step));
  e.p = static_cast<float>(e.p - lr / (1 - std::pow(beta1, step)) * e.m / (root + epsilon));
  return e;
}
