#include "app/device_engine.h"
#include "core/base/error.h"

namespace qshard {

bool runs_on_device(const RunConfig& config) {
  return config.device == Device::cuda;
}

std::unique_ptr<TrainingEngine> make_device_engine(const RunConfig& config, const HfCheckpoint&, const EngineOptions&,
                                                   const RunBounds&, RankLink&, std::string&) {
  fail_input("{}: this build has no CUDA; install the CUDA toolkit and build again, or use device: cpu",
             config.where("device"));
}

std::optional<MemoryPlans> plan_device_memory(const ModelConfig&, const HfCheckpoint*, const EngineOptions&,
                                              const RunBounds&) {
  return std::nullopt;
}

}  // namespace qshard
