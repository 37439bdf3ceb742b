// AdamW on one parameter whose gradient is known: the loss is (p - 3)^2 / 2, so g = p - 3.
#include "reference/adamw.h"

#include <fmt/core.h>

int main() {
  using namespace qshard;
  AdamWOptions options;
  options.weight_decay = 0.0;
  float parameter = 0.0F;
  float exp_avg = 0.0F;
  float exp_avg_sq = 0.0F;
  fmt::print("lr 0.5, beta1 {:g}, beta2 {:g}, no weight decay; the minimum is at 3\n", options.beta1, options.beta2);
  fmt::print("  step  p before   gradient   exp_avg    exp_avg_sq  p after\n");
  for (int step = 1; step <= 12; ++step) {
    const float before = parameter;
    const float gradient = parameter - 3.0F;
    reference::adamw_update({&parameter, 1}, {&gradient, 1}, {&exp_avg, 1}, {&exp_avg_sq, 1}, options, DType::f32, 0.5,
                            step);
    if (step <= 4 || step % 4 == 0) {
      fmt::print("  {:4}  {:+.4f}    {:+.4f}    {:+.4f}    {:.5f}     {:+.4f}\n", step, before, gradient, exp_avg,
                 exp_avg_sq, parameter);
    }
  }
  fmt::print("The first steps are lr long whatever the gradient's size: m and sqrt(v) grow together.\n");
  fmt::print("clipping: a global norm of 5 with max_grad_norm 1 scales every gradient by {:.4f}\n",
             reference::clip_factor(5.0, 1.0));
}
