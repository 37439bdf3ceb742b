// Golden cases recorded from bitsandbytes' CUDA kernels on an sm_90 GPU (golden/quant_cases.json describes each):
// float32, float16 and bfloat16, both codebooks, every block size, tails, special values, nested and not.

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "core/base/json.h"
#include "core/formats/safetensors.h"
#include "core/tensor/float16.h"
#include "correctness/differing_elements.h"
#include "correctness/golden_cases.h"
#include "reference/dequantize.h"
#include "reference/quantize.h"

namespace qshard::reference {
namespace {

const std::string kGolden = QSHARD_GOLDEN_DIR;

float scalar(const TensorView& tensor) {
  return to_floats(tensor).at(0);
}

using test::differing_elements;

std::size_t differing_elements(const std::vector<float>& a, const TensorView& b) {
  return differing_elements({DType::f32, {std::ssize(a)}, std::as_bytes(std::span(a))}, b);
}

bool same_bytes(const std::vector<std::uint8_t>& a, const TensorView& b) {
  return std::ranges::equal(std::as_bytes(std::span(a)), b.bytes);
}

void check_case(const Json& golden, const SafetensorsFile& file) {
  const auto name = golden.at("name").get<std::string>();
  SCOPED_TRACE(golden.dump());
  const bool nested = golden.at("double_quant").get<bool>();
  QuantizationOptions options;
  options.quant_type = parse_quant_type(golden.at("quant_type").get<std::string>(), name);
  options.blocksize = golden.at("blocksize").get<int>();
  options.double_quant = nested;
  QuantizationArithmetic arithmetic;
  if (nested) arithmetic.offset = scalar(file.tensor(name + ".offset"));
  const TensorView input = file.tensor(name + ".input");
  ASSERT_EQ(torch_name(input.dtype), golden.at("dtype").get<std::string>());
  ASSERT_EQ(element_count(input.shape), golden.at("n").get<std::int64_t>());

  const Weight4bit weight = quantize(input, options, name, arithmetic);

  EXPECT_TRUE(same_bytes(weight.codes, file.tensor(name + ".packed")));
  if (nested) {
    EXPECT_TRUE(same_bytes(weight.absmax_codes, file.tensor(name + ".absmax")));
    EXPECT_EQ(differing_elements(weight.nested_absmax, file.tensor(name + ".nested_absmax")), 0U);
  } else {
    EXPECT_EQ(differing_elements(weight.absmax, file.tensor(name + ".absmax")), 0U);
  }
  const TensorView expected = file.tensor(name + ".dequant");
  EXPECT_EQ(differing_elements(dequantize(weight.view(), expected.dtype).view(), expected), 0U);
}

TEST(GoldenQuant, AllCasesOfBitsandbytes) {
  const Json cases = read_golden_cases().at("cases");
  const SafetensorsFile file = SafetensorsFile::open(kGolden + "/quant_cases.safetensors");
  ASSERT_EQ(cases.size(), 246U);
  for (const Json& golden : cases) check_case(golden, file);
}

// golden/llama/base quantized here, layer by layer, against what bitsandbytes stored of it.
void check_llama(bool offset_given) {
  const SafetensorsFile base = SafetensorsFile::open(kGolden + "/llama/base/model.safetensors");
  const SafetensorsFile stored = SafetensorsFile::open(kGolden + "/llama/bnb4bit/model.safetensors");
  int layers = 0;
  for (const std::string& name : base.names()) {
    if (!stored.contains(name + ".absmax")) continue;
    SCOPED_TRACE(name);
    ++layers;
    const TensorView text = stored.tensor(name + ".quant_state.bitsandbytes__nf4");
    const Json state = Json::parse(std::string(reinterpret_cast<const char*>(text.bytes.data()), text.bytes.size()));
    const auto offset = state.at("nested_offset").get<float>();
    QuantizationOptions options;
    options.blocksize = state.at("blocksize").get<int>();
    options.quant_storage = DType::bf16;
    QuantizationArithmetic arithmetic;
    if (offset_given) arithmetic.offset = offset;

    const Weight4bit weight = quantize(base.tensor(name), options, name, arithmetic);

    EXPECT_TRUE(same_bytes(weight.codes, stored.tensor(name)));
    EXPECT_EQ(weight.info.offset, offset);
    EXPECT_TRUE(same_bytes(weight.absmax_codes, stored.tensor(name + ".absmax")));
    EXPECT_EQ(differing_elements(weight.nested_absmax, stored.tensor(name + ".nested_absmax")), 0U);
    const std::vector<float> map(weight.info.nested_map.begin(), weight.info.nested_map.end());
    EXPECT_EQ(differing_elements(map, stored.tensor(name + ".nested_quant_map")), 0U);
  }
  EXPECT_EQ(layers, 14);
}

TEST(GoldenQuant, LlamaWithTheStoredOffsets) {
  check_llama(true);
}

// The mean of absmax rounded once is what PyTorch's sum on the GPU gave for all 14 layers.
TEST(GoldenQuant, LlamaWithComputedOffsets) {
  check_llama(false);
}

}  // namespace
}  // namespace qshard::reference
