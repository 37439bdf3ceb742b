// Checks the exercise adamw_element: fails while its gap is open. EXERCISE is the file with the gap, or the solution.
#include EXERCISE
#include "reference/adamw.h"
#include "reference/exercises/checking.h"

int main() {
  using namespace qshard;
  AdamWOptions options;
  options.weight_decay = 0.1;
  Element found{1.0F, 0.0F, 0.0F};
  Element expected = found;
  double worst = 0;
  for (int step = 1; step <= 50; ++step) {
    const float gradient = 0.3F * static_cast<float>(step % 7) - 0.8F;
    found = adamw_element(found, gradient, 0.01, 0.1, options.beta1, options.beta2, options.epsilon, step);
    reference::adamw_update({&expected.p, 1}, {&gradient, 1}, {&expected.m, 1}, {&expected.v, 1}, options, DType::f32,
                            0.01, step);
    worst = std::max<double>(worst, std::abs(found.p - expected.p));
  }
  // The reference may round intermediate results to float where this keeps double: a few units in the last place.
  return report("50 steps of AdamW", !(worst <= 1e-5) ? 1 : 0, 50, worst, 0.0);
}
