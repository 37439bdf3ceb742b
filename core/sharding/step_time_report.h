#pragma once

#include <string>

#include "core/sharding/step_advice.h"

namespace qshard {

/// Lines of text for people: the step's time and what it goes to, the numbers that it rests on, what each knob would
/// change, and a pipeline of layers beside it.
std::string describe(const StepWork& work, const DeviceNumbers& numbers);

}  // namespace qshard
