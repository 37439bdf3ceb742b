#include "core/formats/bnb_checkpoint.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/formats/hf_checkpoint.h"
#include "correctness/expect_error.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

const std::filesystem::path kGolden(QSHARD_GOLDEN_DIR);
constexpr const char* kWeight = "model.layers.0.self_attn.k_proj.weight";

using Tensors = std::map<std::string, Tensor>;

/// The tensors of one golden weight, to be changed and written to a file.
Tensors golden_weight() {
  const SafetensorsFile file = SafetensorsFile::open(kGolden / "llama/bnb4bit/model.safetensors");
  Tensors tensors;
  for (const std::string& name : file.names()) {
    if (name.starts_with(kWeight)) tensors.emplace(name, file.tensor(name));
  }
  return tensors;
}

SafetensorsFile written(const Tensors& tensors, const std::filesystem::path& path) {
  std::vector<std::pair<std::string, TensorView>> views;
  views.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) views.emplace_back(name, tensor.view());
  write_safetensors(path, views);
  return SafetensorsFile::open(path);
}

Tensor text_tensor(std::string_view text) {
  Tensor tensor(DType::u8, {static_cast<std::int64_t>(text.size())});
  std::memcpy(tensor.bytes().data(), text.data(), text.size());
  return tensor;
}

std::string key(std::string_view part) {
  return std::string(kWeight) + "." + std::string(part);
}

const std::string kState = key("quant_state.bitsandbytes__nf4");

void expect_refused(const std::function<void(Tensors&)>& change, std::string_view tensor, std::string_view text) {
  SCOPED_TRACE(text);
  const TemporaryDirectory directory;
  Tensors tensors = golden_weight();
  change(tensors);
  const SafetensorsFile file = written(tensors, directory / "model.safetensors");
  expect_bad_input({(directory / "model.safetensors").string(), tensor, text}, [&] { read_weight4bit(file, kWeight); });
}

/// Replaces `from` in the quant_state's text.
void expect_state_refused(std::string_view from, std::string_view to, std::string_view text) {
  expect_refused(
      [&](Tensors& tensors) {
        const auto bytes = tensors.at(kState).bytes();
        std::string state(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        const std::size_t place = state.find(from);
        ASSERT_NE(place, std::string::npos);
        state.replace(place, from.size(), to);
        tensors[kState] = text_tensor(state);
      },
      kState, text);
}

TEST(BnbCheckpoint, ReadsAGoldenWeight) {
  const HfCheckpoint checkpoint = HfCheckpoint::open(kGolden / "llama/bnb4bit");
  EXPECT_TRUE(has_weight4bit(checkpoint, kWeight));
  EXPECT_FALSE(has_weight4bit(checkpoint, "lm_head.weight"));
  const Weight4bit weight = read_weight4bit(checkpoint, kWeight);
  EXPECT_EQ(weight.info.quant_type, QuantType::nf4);
  EXPECT_EQ(weight.info.blocksize, 64);
  EXPECT_EQ(weight.info.dtype, DType::bf16);
  EXPECT_EQ(weight.info.storage, DType::bf16);
  EXPECT_EQ(weight.info.shape, (Shape{128, 256}));
  EXPECT_TRUE(weight.info.nested);
  EXPECT_EQ(weight.codes.size(), 16384U);
  EXPECT_EQ(weight.absmax_codes.size(), 512U);
  EXPECT_EQ(weight.nested_absmax.size(), 2U);
  EXPECT_TRUE(weight.absmax.empty());
  EXPECT_EQ(weight.info.nested_map[127], 0.0F);
  EXPECT_EQ(weight.info.nested_map[255], 1.0F);
}

// Round to nearest even to bf16, on the bits of a finite float.
float as_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7FFFU + ((bits >> 16) & 1U)) & 0xFFFF0000U);
}

// bitsandbytes computes absmax in nested_dtype: the product is rounded, then the sum with the offset.
TEST(BnbCheckpoint, StatisticsInBfloat16AreRoundedTwice) {
  for (const bool stored_as_bfloat16 : {false, true}) {
    const TemporaryDirectory directory;
    Tensors tensors = golden_weight();
    const SafetensorsFile plain = written(tensors, directory / "plain.safetensors");
    const auto bytes = tensors.at(kState).bytes();
    std::string state(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    state.replace(state.find("\"float32\""), 9, "\"bfloat16\"");
    tensors[kState] = text_tensor(state);
    std::vector<float> nested = to_floats(tensors.at(key("nested_absmax")).view());
    std::vector<float> map = to_floats(tensors.at(key("nested_quant_map")).view());
    if (stored_as_bfloat16) {
      for (float& value : nested) value = as_bfloat16(value);
      for (float& value : map) value = as_bfloat16(value);
      tensors[key("nested_absmax")] = from_floats(nested, DType::bf16, {std::ssize(nested)});
      tensors[key("nested_quant_map")] = from_floats(map, DType::bf16, {std::ssize(map)});
    }
    const SafetensorsFile file = written(tensors, directory / "model.safetensors");
    const Weight4bit usual = read_weight4bit(plain, kWeight);
    const Weight4bit weight = read_weight4bit(file, kWeight);
    EXPECT_FALSE(weight.info.nested);
    EXPECT_FALSE(read_weight4bit_info(file, kWeight).nested);
    EXPECT_EQ(weight.codes, usual.codes);
    ASSERT_EQ(weight.absmax.size(), usual.absmax_codes.size());
    int changed_by_rounding = 0;
    for (std::size_t i = 0; i < weight.absmax.size(); ++i) {
      const float product = map[usual.absmax_codes[i]] * nested[i / 256];
      const float expected = as_bfloat16(as_bfloat16(product) + usual.info.offset);
      EXPECT_EQ(weight.absmax[i], expected) << i;
      changed_by_rounding += as_bfloat16(product + usual.info.offset) != expected ? 1 : 0;
    }
    EXPECT_GT(changed_by_rounding, 0) << "the first rounding was not put to the test";
  }
}

TEST(BnbCheckpoint, ALayerRepackedForACpuIsRefused) {
  expect_refused(
      [](Tensors& tensors) {
        tensors[key("absmax")] = Tensor(DType::bf16, {128, 4});
      },
      key("absmax"), "AVX512-BF16");
}

TEST(BnbCheckpoint, TheGoldenCheckpointWrittenBackIsTheSameBytes) {
  const TemporaryDirectory directory;
  const SafetensorsFile golden = SafetensorsFile::open(kGolden / "llama/bnb4bit/model.safetensors");
  std::vector<std::string> linear;
  std::vector<std::pair<std::string, TensorView>> tensors;
  for (const std::string& name : golden.names()) {
    if (has_weight4bit(golden, name)) {
      linear.push_back(name);
    } else if (name.ends_with("norm.weight") || name == "lm_head.weight" || name == "model.embed_tokens.weight") {
      tensors.emplace_back(name, golden.tensor(name));
    }
  }
  EXPECT_EQ(linear.size(), 14U);
  std::vector<Weight4bit> weights;
  weights.reserve(linear.size());
  std::vector<Tensor> kept;
  for (const std::string& name : linear) {
    weights.push_back(read_weight4bit(golden, name));
    append_weight4bit(name, weights.back().view(), tensors, kept);
  }
  write_safetensors(directory / "copy", tensors, golden.metadata());
  EXPECT_TRUE(read_file(directory / "copy") == read_file(golden.path()));
}

/// A small weight of 96 elements without meaning.
Weight4bit small_weight(QuantType type, DType storage, bool nested) {
  Weight4bit weight;
  weight.info = {type, 32, DType::f16, storage, {3, 32}, nested, 0.1F, {}};
  for (int i = 0; i < 48; ++i) weight.codes.push_back(static_cast<std::uint8_t>(i * 5));
  if (nested) {
    weight.absmax_codes = {1, 2, 255};
    weight.nested_absmax = {std::numeric_limits<float>::quiet_NaN()};
    for (std::size_t i = 0; i < 256; ++i) weight.info.nested_map[i] = static_cast<float>(i) - 127.0F;
  } else {
    weight.absmax = {-1.0F, std::numeric_limits<float>::infinity(), 0.0F};
  }
  return weight;
}

std::vector<std::uint32_t> bits(std::span<const float> values) {
  std::vector<std::uint32_t> result;
  std::transform(values.begin(), values.end(), std::back_inserter(result),
                 [](float value) { return std::isnan(value) ? 0x7FC00000U : std::bit_cast<std::uint32_t>(value); });
  return result;
}

void expect_equal(const Weight4bitInfo& a, const Weight4bitInfo& b) {
  EXPECT_EQ(a.quant_type, b.quant_type);
  EXPECT_EQ(a.blocksize, b.blocksize);
  EXPECT_EQ(a.dtype, b.dtype);
  EXPECT_EQ(a.storage, b.storage);
  EXPECT_EQ(a.shape, b.shape);
  EXPECT_EQ(a.nested, b.nested);
  if (a.nested) {
    EXPECT_EQ(bits({&a.offset, 1}), bits({&b.offset, 1}));
    EXPECT_EQ(bits(a.nested_map), bits(b.nested_map));
  }
}

void expect_equal(const Weight4bit& a, const Weight4bit& b) {
  expect_equal(a.info, b.info);
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.absmax_codes, b.absmax_codes);
  EXPECT_EQ(bits(a.absmax), bits(b.absmax));
  EXPECT_EQ(bits(a.nested_absmax), bits(b.nested_absmax));
}

TEST(BnbCheckpoint, EveryKindOfWeightComesBack) {
  const TemporaryDirectory directory;
  for (const QuantType type : {QuantType::nf4, QuantType::fp4}) {
    for (const DType storage : {DType::u8, DType::bf16, DType::f16, DType::f32}) {
      for (const bool nested : {false, true}) {
        const Weight4bit weight = small_weight(type, storage, nested);
        std::vector<std::pair<std::string, TensorView>> tensors;
        std::vector<Tensor> kept;
        append_weight4bit("w", weight.view(), tensors, kept);
        write_safetensors(directory / "f", tensors);
        const SafetensorsFile file = SafetensorsFile::open(directory / "f");
        expect_equal(read_weight4bit(file, "w"), weight);
        expect_equal(read_weight4bit_info(file, "w"), weight.info);
      }
    }
  }
}

TEST(BnbCheckpoint, TheInfoIsReadWithoutCodesAndScales) {
  const TemporaryDirectory directory;
  Tensors tensors = golden_weight();
  const Weight4bitInfo whole = read_weight4bit_info(written(tensors, directory / "whole"), kWeight);
  tensors[kWeight] = Tensor(DType::bf16, {0});
  for (const char* part : {"absmax", "nested_absmax", "quant_map"}) tensors.erase(key(part));
  expect_equal(read_weight4bit_info(written(tensors, directory / "info"), kWeight), whole);
}

TEST(BnbCheckpoint, TheInfoOfABadWeightIsRefused) {
  const TemporaryDirectory directory;
  for (const std::string& part : {kState, key("nested_quant_map"), std::string(kWeight)}) {
    Tensors tensors = golden_weight();
    tensors[part] = Tensor(DType::i32, {256});
    const SafetensorsFile file = written(tensors, directory / "f");
    expect_bad_input({(directory / "f").string(), part, "int32"}, [&] { read_weight4bit_info(file, kWeight); });
  }
}

TEST(BnbCheckpoint, EveryOffsetComesBackToTheBit) {
  Weight4bit weight = small_weight(QuantType::nf4, DType::u8, true);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float offset : {0.0F, -0.0F, 0.1F, 1e-45F, std::numeric_limits<float>::max(), -3.5e-20F, 123456792.0F,
                             kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    weight.info.offset = offset;
    const float back = parse_quant_state(quant_state_text(weight.info), "f").offset;
    EXPECT_TRUE(std::bit_cast<std::uint32_t>(back) == std::bit_cast<std::uint32_t>(offset) ||
                (std::isnan(back) && std::isnan(offset)))
        << offset;
  }
}

// As bitsandbytes writes it: json.dumps of a dictionary in this order.
TEST(BnbCheckpoint, QuantStateText) {
  EXPECT_EQ(quant_state_text(small_weight(QuantType::nf4, DType::u8, true).info),
            R"({"quant_type": "nf4", "blocksize": 32, "dtype": "float16", "shape": [3, 32], )"
            R"("nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.10000000149011612})");
  EXPECT_EQ(quant_state_text(small_weight(QuantType::fp4, DType::u8, false).info),
            R"({"quant_type": "fp4", "blocksize": 32, "dtype": "float16", "shape": [3, 32]})");
}

TEST(BnbCheckpoint, Fp4CodeEightIsStoredAsPlusZero) {
  const Weight4bit weight = small_weight(QuantType::fp4, DType::u8, false);
  std::vector<std::pair<std::string, TensorView>> tensors;
  std::vector<Tensor> kept;
  append_weight4bit("w", weight.view(), tensors, kept);
  const auto map = std::find_if(tensors.begin(), tensors.end(), [](const auto& t) { return t.first == "w.quant_map"; });
  ASSERT_NE(map, tensors.end());
  EXPECT_FALSE(std::signbit(to_floats(map->second).at(8)));
}

TEST(BnbCheckpoint, AStorageThatCannotHoldTheBytesWholeIsRefused) {
  Weight4bit weight = small_weight(QuantType::nf4, DType::bf16, false);
  weight.info.shape = {1, 65};
  weight.codes.resize(33);
  std::vector<std::pair<std::string, TensorView>> tensors;
  std::vector<Tensor> kept;
  expect_bad_input({"some.weight", "65", "bfloat16", "uint8"},
                   [&] { append_weight4bit("some.weight", weight.view(), tensors, kept); });
  EXPECT_TRUE(tensors.empty());
}

TEST(BnbCheckpoint, MissingPartsAreNamed) {
  for (const char* part : {"absmax", "quant_map", "nested_absmax", "nested_quant_map"}) {
    expect_refused([&](Tensors& tensors) { tensors.erase(key(part)); }, key(part), "missing");
  }
  expect_refused([](Tensors& tensors) { tensors.erase(kState); }, kState, "missing");
  expect_refused([](Tensors& tensors) { tensors.erase(kWeight); }, kWeight, "missing");
}

TEST(BnbCheckpoint, PartsOfAnotherSizeAreRefused) {
  expect_refused([](Tensors& t) { t[kWeight] = Tensor(DType::bf16, {8191, 1}); }, kWeight, "packed data");
  expect_refused([](Tensors& t) { t[kWeight] = Tensor(DType::f32, {8192, 1}); }, kWeight, "packed data");
  expect_refused([](Tensors& t) { t[key("absmax")] = Tensor(DType::u8, {511}); }, kWeight, "absmax");
  expect_refused([](Tensors& t) { t[key("nested_absmax")] = Tensor(DType::f32, {3}); }, kWeight, "nested_absmax");
  expect_refused([](Tensors& t) { t[key("nested_absmax")] = Tensor(DType::f32, {0}); }, kWeight, "nested_absmax");
  expect_refused([](Tensors& t) { t[key("nested_quant_map")] = Tensor(DType::f32, {255}); }, key("nested_quant_map"),
                 "255");
  expect_refused([](Tensors& t) { t[key("quant_map")] = Tensor(DType::f32, {15}); }, key("quant_map"), "codebook");
}

TEST(BnbCheckpoint, PartsOfAnotherTypeAreRefused) {
  expect_refused([](Tensors& t) { t[kWeight] = Tensor(DType::i32, {4096, 1}); }, kWeight, "quant_storage");
  expect_refused([](Tensors& t) { t[key("absmax")] = Tensor(DType::f32, {512}); }, key("absmax"), "uint8");
  expect_refused([](Tensors& t) { t[key("nested_absmax")] = Tensor(DType::bf16, {2}); }, key("nested_absmax"),
                 "float32");
  expect_refused([](Tensors& t) { t[key("quant_map")] = Tensor(DType::u8, {16}); }, key("quant_map"), "floating-point");
  expect_refused([](Tensors& t) { t[kState] = Tensor(DType::f32, {1}); }, kState, "uint8");
}

TEST(BnbCheckpoint, AnotherCodebookIsRefused) {
  for (const float value : {0.5F, 2e-6F, std::numeric_limits<float>::quiet_NaN()}) {
    expect_refused([&](Tensors& t) { t[key("quant_map")].as<float>()[7] = value; }, key("quant_map"), "nf4 codebook");
  }
  Tensors tensors = golden_weight();
  tensors[key("quant_map")].as<float>()[7] = 0.5e-6F;
  const TemporaryDirectory directory;
  EXPECT_NO_THROW(read_weight4bit(written(tensors, directory / "f"), kWeight));
  tensors[key("quant_map")] = from_floats(kNf4Values, DType::bf16, {16});
  EXPECT_NO_THROW(read_weight4bit(written(tensors, directory / "f"), kWeight));
}

TEST(BnbCheckpoint, UnknownPartsAreRefused) {
  expect_refused([](Tensors& t) { t[key("SCB")] = Tensor(DType::f32, {1}); }, key("SCB"), "no part");
  const std::string second = key("quant_state.bitsandbytes__fp4");
  expect_refused([&](Tensors& t) { t[second] = t[kState]; }, second, "contradicts");
}

TEST(BnbCheckpoint, WrongQuantStatesAreRefused) {
  expect_state_refused("\"nf4\"", "\"fp4\"", "contradicts");
  expect_state_refused("\"nf4\"", "\"int4\"", "int4");
  expect_state_refused("64,", "48,", "blocksize: 48");
  expect_state_refused("64,", "4294967360,", "blocksize: 4294967360");
  expect_state_refused("64,", "0,", "blocksize: 0");
  expect_state_refused("64,", "\"64\",", "blocksize: must be an integer");
  expect_state_refused("[128, 256]", "[128, -256]", "shape");
  expect_state_refused("[128, 256]", "[0, 256]", "shape");
  expect_state_refused("[128, 256]", "[4294967296, 4294967296]", "shape");
  expect_state_refused("[128, 256]", "null", "shape");
  expect_state_refused("\"bfloat16\"", "\"int8\"", "int8");
  expect_state_refused("\"bfloat16\"", "\"uint8\"", "floating-point");
  expect_state_refused("_blocksize\": 256", "_blocksize\": 128", "nested_blocksize: 128");
  expect_state_refused("\"float32\"", "\"float16\"", "nested_dtype");
  expect_state_refused("\"nested_offset\": 0.", "\"nested_offset\": 1e39, \"x\": 0.", "x: unknown");
  expect_state_refused("\"nested_offset\": 0.", "\"nested_offset\": 1e39, \"shape\": 0.", "twice");
  expect_state_refused("\"nested_offset\"", "\"nested_offsets\"", "nested_offsets: unknown");
  expect_state_refused("}", "", "JSON");
  expect_bad_input({"f: nested_offset", "float32"}, [] {
    parse_quant_state(R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [2], )"
                      R"("nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 1e39})",
                      "f");
  });
}

TEST(BnbCheckpoint, AStateThatContradictsTheNestedTensorsIsRefused) {
  expect_refused(
      [](Tensors& t) {
        t[kState] = text_tensor(R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [128, 256]})");
      },
      kWeight, "nested statistics");
  expect_refused(
      [](Tensors& t) {
        t[key("absmax")] = Tensor(DType::f32, {512});
        t.erase(key("nested_absmax"));
        t.erase(key("nested_quant_map"));
      },
      key("absmax"), "uint8");
}

}  // namespace
}  // namespace qshard
