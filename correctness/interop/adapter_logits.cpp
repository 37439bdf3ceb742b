// adapter_logits BASE ADAPTER IDS OUTPUT: the logits that the reference computes in float32 on the dense model BASE
// with the PEFT adapter ADAPTER, at every position of the rows input_ids [rows, tokens] (I32) of the safetensors file
// IDS, as "logits" [rows, tokens, vocabulary] (F32) of the safetensors file OUTPUT.
#include <algorithm>
#include <cstdio>
#include <exception>

#include "core/formats/adapter_targets.h"
#include "core/formats/peft_adapter.h"
#include "core/formats/safetensors.h"
#include "core/run/engine_options.h"
#include "reference/sharded_engine.h"

namespace qshard {
namespace {

void write_logits(char** arguments) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(arguments[1]);
  const PeftAdapter adapter = read_adapter(arguments[2], checkpoint.config());
  EngineOptions options;
  options.dtype = DType::f32;
  options.quantization.load_in_4bit = false;
  options.lora = lora_options(adapter.config, checkpoint.config());
  const auto engine = reference::make_sharded_engine(checkpoint, options);
  engine->load_adapter(adapter.tensors);

  const SafetensorsFile file = SafetensorsFile::open(arguments[3]);
  const Tensor ids(file.tensor("input_ids"));
  const std::int64_t rows = ids.shape()[0];
  const std::int64_t tokens = ids.shape()[1];
  const std::int64_t vocabulary = checkpoint.config().vocab_size;
  Tensor logits(DType::f32, {rows, tokens, vocabulary});
  const auto decoder = engine->make_decoder(rows, tokens);
  for (std::int64_t position = 0; position < tokens; ++position) {
    std::vector<std::int32_t> next;
    for (std::int64_t row = 0; row < rows; ++row) next.push_back(ids.as<std::int32_t>()[row * tokens + position]);
    std::vector<std::vector<std::int32_t>> prompts;
    for (const std::int32_t id : next) prompts.push_back({id});
    const TokenLogits of = position == 0 ? decoder->start(prompts) : decoder->next(next);
    for (std::int64_t row = 0; row < rows; ++row) {
      std::ranges::copy(of.row(row), logits.as<float>().begin() + (row * tokens + position) * vocabulary);
    }
  }
  write_safetensors(arguments[4], {{"logits", logits.view()}});
}

}  // namespace
}  // namespace qshard

int main(int count, char** arguments) {
  if (count != 5) {
    std::fputs("usage: adapter_logits BASE ADAPTER IDS OUTPUT\n", stderr);
    return 2;
  }
  try {
    qshard::write_logits(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
