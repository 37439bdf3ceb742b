// A model's config.json: either refused, or written with a quantization_config it reads as that.
#include "core/formats/hf_config.h"
#include "core/model/model_config.h"
#include "correctness/fuzz/fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qshard;
  fuzz::expect_handled([&] {
    const ModelConfig config = parse_hf_config(fuzz::as_text(data, size), "input");
    const std::string text = config_text(config, QuantizationOptions{}, DType::bf16);
    const ModelConfig quantized = parse_hf_config(text, "input");
    fuzz::require(quantized.prequantized_4bit && quantized.hidden_size == config.hidden_size);
    fuzz::require(config_text(quantized, QuantizationOptions{}, DType::bf16) == text);
  });
  return 0;
}
