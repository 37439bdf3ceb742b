#include "optimized/attention/attention.h"

// The plans of a build without cuDNN: its own kernels keep nothing.
namespace qshard::optimized {

struct AttentionPlans::State {};

AttentionPlans::AttentionPlans() = default;
AttentionPlans::~AttentionPlans() = default;

}  // namespace qshard::optimized
