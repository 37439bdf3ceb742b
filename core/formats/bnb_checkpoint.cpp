#include "core/formats/bnb_checkpoint.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include <fmt/ranges.h>

#include "core/base/error.h"
#include "core/base/json.h"

namespace qshard {
namespace {

constexpr std::string_view kStatePrefix = ".quant_state.bitsandbytes__";
constexpr std::string_view kOffsetKey = "\"nested_offset\": ";
constexpr float kMapTolerance = 1e-6F;  // bitsandbytes' own, for equal quantization states
constexpr std::int64_t kLargestWeight = std::numeric_limits<std::int64_t>::max() / 8;

std::string state_key(std::string_view name, QuantType type) {
  return fmt::format("{}{}{}", name, kStatePrefix, to_string(type));
}

std::string key_of(std::string_view name, std::string_view part) {
  return fmt::format("{}.{}", name, part);
}

std::string where_of(const TensorSource& source, std::string_view tensor) {
  return fmt::format("{}: tensor \"{}\"", source.file_of(tensor).string(), tensor);
}

TensorView part_of(const TensorSource& source, const std::string& tensor, DType dtype) {
  TensorView view = source.tensor(tensor);
  if (view.dtype != dtype) {
    fail_input("{} is {}, but must be {}", where_of(source, tensor), torch_name(view.dtype), torch_name(dtype));
  }
  return view;
}

std::vector<std::uint8_t> to_codes(const TensorView& view) {
  const auto* first = reinterpret_cast<const std::uint8_t*>(view.bytes.data());
  return {first, first + view.bytes.size()};
}

// Keys that begin as the weight's do and are none of them mean another format, or a mistake.
void refuse_unknown_parts(const TensorSource& source, std::string_view name, QuantType type) {
  const std::string prefix = fmt::format("{}.", name);
  const std::array<std::string, 5> known{key_of(name, "absmax"), key_of(name, "quant_map"),
                                         key_of(name, "nested_absmax"), key_of(name, "nested_quant_map"),
                                         state_key(name, type)};
  for (const std::string& tensor : source.names_with_prefix(prefix)) {
    if (std::find(known.begin(), known.end(), tensor) == known.end()) {
      fail_input("{} is no part of a {} weight", where_of(source, tensor), to_string(type));
    }
  }
}

/// What quant_state says: all of the info but nested_map, and the dtype in which nested statistics are computed.
struct QuantState {
  Weight4bitInfo info;
  DType nested_dtype = DType::f32;
};

QuantState parse_state(std::string_view text, std::string_view where);

QuantState read_state(const TensorSource& source, std::string_view name) {
  const QuantType type = source.contains(state_key(name, QuantType::fp4)) ? QuantType::fp4 : QuantType::nf4;
  const std::string key = state_key(name, type);
  const TensorView state = part_of(source, key, DType::u8);
  const std::string where = where_of(source, key);
  const std::string_view text(reinterpret_cast<const char*>(state.bytes.data()), state.bytes.size());
  QuantState read = parse_state(text, where);
  Weight4bitInfo& info = read.info;
  if (info.quant_type != type) {
    fail_input("{}: quant_type {} contradicts the tensor's name", where, to_string(info.quant_type));
  }
  refuse_unknown_parts(source, name, type);
  info.storage = source.tensor(name).dtype;
  if (info.storage == DType::i32 || info.storage == DType::i64) {
    fail_input("{}: {} is no quant_storage; known: uint8, float16, bfloat16, float32", where_of(source, name),
               torch_name(info.storage));
  }
  return read;
}

// Statistics computed in bf16 may be stored as bf16, too.
std::vector<float> floats_of(const TensorSource& source, const std::string& tensor, DType dtype) {
  const bool is_narrow = dtype == DType::bf16 && source.tensor(tensor).dtype == dtype;
  return to_floats(is_narrow ? source.tensor(tensor) : part_of(source, tensor, DType::f32));
}

std::array<float, 256> read_nested_map(const TensorSource& source, std::string_view name, DType dtype) {
  const std::string key = key_of(name, "nested_quant_map");
  const std::vector<float> values = floats_of(source, key, dtype);
  std::array<float, 256> map{};
  if (values.size() != map.size()) {
    fail_input("{} has {} values, but must have {}", where_of(source, key), values.size(), map.size());
  }
  std::copy(values.begin(), values.end(), map.begin());
  return map;
}

// The map may have been rounded to the dtype it is stored in.
void check_codebook(const TensorSource& source, const std::string& tensor, QuantType type) {
  const TensorView view = source.tensor(tensor);
  if (!is_floating(view.dtype)) {
    fail_input("{} is {}, but must be floating-point", where_of(source, tensor), torch_name(view.dtype));
  }
  const std::vector<float> found = to_floats(view);
  const std::vector<float> expected = to_floats(from_floats(codebook(type), view.dtype, {16}).view());
  const bool equal = std::equal(found.begin(), found.end(), expected.begin(), expected.end(),
                                [](float a, float b) { return std::abs(a - b) <= kMapTolerance; });
  if (!equal) fail_input("{} is not the {} codebook", where_of(source, tensor), to_string(type));
}

void read_nested(const TensorSource& source, std::string_view name, DType dtype, Weight4bit& weight) {
  weight.absmax_codes = to_codes(part_of(source, key_of(name, "absmax"), DType::u8));
  weight.nested_absmax = floats_of(source, key_of(name, "nested_absmax"), dtype);
  weight.info.nested_map = read_nested_map(source, name, dtype);
}

void forget_nesting(Weight4bitInfo& info) {
  info.nested = false;
  info.offset = 0;
  info.nested_map = {};
}

// As no kernel rounds statistics to bf16, the weight becomes one without nesting that has the same absmax to the bit.
void unnest(Weight4bit& weight, DType dtype) {
  const auto rounded = [dtype](const std::vector<float>& values) {
    return to_floats(from_floats(values, dtype, {std::ssize(values)}).view());
  };
  std::vector<float> values(weight.absmax_codes.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = weight.info.nested_map[weight.absmax_codes[i]] * weight.nested_absmax[i / kNestedBlocksize];
  }
  values = rounded(values);
  for (float& value : values) value += weight.info.offset;
  weight.absmax = rounded(values);
  weight.absmax_codes.clear();
  weight.nested_absmax.clear();
  forget_nesting(weight.info);
}

// A CPU with AVX512-BF16 repacks the codes for its own kernels, with absmax in bf16 and two dimensions.
void refuse_repacked(const TensorSource& source, std::string_view name) {
  const std::string tensor = key_of(name, "absmax");
  if (!source.contains(tensor)) return;
  const TensorView view = source.tensor(tensor);
  if (view.dtype != DType::bf16 || view.shape.size() != 2) return;
  fail_input(
      "{} is bfloat16 with two dimensions: bitsandbytes repacked this layer for a CPU with AVX512-BF16, and its codes "
      "are "
      "in another order; save the model again from where no CPU kernel ran, or from the weights before quantization",
      where_of(source, tensor));
}

Tensor tensor_of(std::string_view text) {
  Tensor tensor(DType::u8, {static_cast<std::int64_t>(text.size())});
  std::memcpy(tensor.bytes().data(), text.data(), text.size());
  return tensor;
}

// As bitsandbytes computes it in Python, where FP4's code 8 is +0.
Tensor stored_codebook(QuantType type) {
  std::array<float, 16> values = codebook(type);
  for (float& value : values) value = value == 0.0F ? 0.0F : value;
  return from_floats(values, DType::f32, {16});
}

// Python writes NaN and infinity as words that JSON lacks: cuts such an offset out of `text`.
std::optional<float> cut_special_offset(std::string& text) {
  constexpr std::array<std::pair<std::string_view, float>, 3> kWords{
      {{"NaN", std::numeric_limits<float>::quiet_NaN()},
       {"Infinity", std::numeric_limits<float>::infinity()},
       {"-Infinity", -std::numeric_limits<float>::infinity()}}};
  const std::size_t place = text.find(kOffsetKey);
  if (place == std::string::npos) return std::nullopt;
  for (const auto& [word, value] : kWords) {
    if (text.compare(place + kOffsetKey.size(), word.size(), word) != 0) continue;
    text.replace(place + kOffsetKey.size(), word.size(), word.size(), ' ');
    text[place + kOffsetKey.size()] = '0';
    return value;
  }
  return std::nullopt;
}

void parse_nested(const JsonObject& fields, std::optional<float> special_offset, QuantState& state) {
  Weight4bitInfo& info = state.info;
  info.nested = true;
  if (fields.integer("nested_blocksize") != kNestedBlocksize) {
    fail_input("{}: {} is not supported; known: {}", fields.where("nested_blocksize"),
               fields.integer("nested_blocksize"), kNestedBlocksize);
  }
  state.nested_dtype = parse_torch_name(fields.string("nested_dtype"), fields.where("nested_dtype"));
  if (state.nested_dtype != DType::f32 && state.nested_dtype != DType::bf16) {
    fail_input("{}: \"{}\" is not supported; known: float32, bfloat16", fields.where("nested_dtype"),
               fields.string("nested_dtype"));
  }
  const double offset = fields.number("nested_offset");
  if (!(std::abs(offset) <= std::numeric_limits<float>::max())) {
    fail_input("{}: {} is not a float32", fields.where("nested_offset"), offset);
  }
  info.offset = special_offset.value_or(static_cast<float>(offset));
}

// Sizes in range whose product is one too.
Shape parse_shape(const JsonObject& fields) {
  Shape shape = fields.integers("shape");
  std::int64_t elements = 1;
  for (const std::int64_t size : shape) {
    if (size <= 0 || elements > kLargestWeight / size) {
      fail_input("{}: {} is no shape of a 4-bit weight", fields.where("shape"), to_string(shape));
    }
    elements *= size;
  }
  return shape;
}

QuantState parse_state(std::string_view text, std::string_view where) {
  std::string json_text(text);
  const std::optional<float> special_offset = cut_special_offset(json_text);
  const Json json = parse_json(json_text, where);
  const JsonObject fields(json, std::string(where));
  fields.allow_only({"quant_type", "blocksize", "dtype", "shape", "nested_blocksize", "nested_dtype", "nested_offset"});

  QuantState state;
  Weight4bitInfo& info = state.info;
  info.quant_type = parse_quant_type(fields.string("quant_type"), fields.where("quant_type"));
  const std::int64_t blocksize = fields.integer("blocksize");
  if (!is_supported_blocksize(blocksize)) {
    fail_input("{}: {} is not supported; known: 32, 64, 128, 256, 512, 1024, 2048, 4096", fields.where("blocksize"),
               blocksize);
  }
  info.blocksize = static_cast<int>(blocksize);
  info.dtype = parse_torch_name(fields.string("dtype"), fields.where("dtype"));
  if (!is_floating(info.dtype)) fail_input("{}: must be a floating-point dtype", fields.where("dtype"));
  info.shape = parse_shape(fields);
  if (fields.has("nested_blocksize") || fields.has("nested_dtype") || fields.has("nested_offset")) {
    parse_nested(fields, special_offset, state);
  }
  return state;
}

}  // namespace

bool has_weight4bit(const TensorSource& source, std::string_view name) {
  return source.contains(state_key(name, QuantType::nf4)) || source.contains(state_key(name, QuantType::fp4)) ||
         source.contains(key_of(name, "absmax")) || source.contains(key_of(name, "quant_map")) ||
         source.contains(key_of(name, "nested_absmax")) || source.contains(key_of(name, "nested_quant_map"));
}

Weight4bitInfo read_weight4bit_info(const TensorSource& source, std::string_view name) {
  QuantState state = read_state(source, name);
  if (state.nested_dtype != DType::f32) {
    forget_nesting(state.info);
  } else if (state.info.nested) {
    state.info.nested_map = read_nested_map(source, name, DType::f32);
  }
  return state.info;
}

Weight4bit read_weight4bit(const TensorSource& source, std::string_view name) {
  refuse_repacked(source, name);
  const QuantState state = read_state(source, name);
  Weight4bit weight;
  weight.info = state.info;
  weight.codes = to_codes(source.tensor(name));
  check_codebook(source, key_of(name, "quant_map"), weight.info.quant_type);
  const bool nested_tensors =
      source.contains(key_of(name, "nested_absmax")) || source.contains(key_of(name, "nested_quant_map"));
  if (nested_tensors && !weight.info.nested) {
    fail_input("{} has nested statistics, but its quant_state does not", where_of(source, name));
  }
  if (weight.info.nested) {
    read_nested(source, name, state.nested_dtype, weight);
  } else {
    weight.absmax = to_floats(part_of(source, key_of(name, "absmax"), DType::f32));
  }
  check_consistent(weight.view(), where_of(source, name));
  if (state.nested_dtype != DType::f32) unnest(weight, state.nested_dtype);
  return weight;
}

void append_weight4bit(const std::string& name, const Weight4bitView& weight,
                       std::vector<std::pair<std::string, TensorView>>& tensors, std::vector<Tensor>& kept) {
  const auto vector_of = [](DType dtype, auto values) {
    return TensorView{dtype, {static_cast<std::int64_t>(values.size())}, std::as_bytes(std::span(values))};
  };
  const Weight4bitInfo& info = *weight.info;
  check_consistent(weight, name);
  const Shape stored = storage_shape(element_count(info.shape), info.storage, name);
  tensors.emplace_back(name, TensorView{info.storage, stored, std::as_bytes(weight.codes)});
  if (info.nested) {
    tensors.emplace_back(key_of(name, "absmax"), vector_of(DType::u8, weight.absmax_codes));
    tensors.emplace_back(key_of(name, "nested_absmax"), vector_of(DType::f32, weight.nested_absmax));
    tensors.emplace_back(key_of(name, "nested_quant_map"),
                         vector_of(DType::f32, std::span<const float>(info.nested_map)));
  } else {
    tensors.emplace_back(key_of(name, "absmax"), vector_of(DType::f32, weight.absmax));
  }
  kept.push_back(stored_codebook(info.quant_type));
  tensors.emplace_back(key_of(name, "quant_map"), kept.back().view());
  kept.push_back(tensor_of(quant_state_text(info)));
  tensors.emplace_back(state_key(name, info.quant_type), kept.back().view());
}

std::string quant_state_text(const Weight4bitInfo& info) {
  std::string text =
      fmt::format(R"({{"quant_type": "{}", "blocksize": {}, "dtype": "{}", "shape": {})", to_string(info.quant_type),
                  info.blocksize, torch_name(info.dtype), to_string(info.shape));
  if (info.nested) {
    text += fmt::format(R"(, "nested_blocksize": {}, "nested_dtype": "float32", {}{})", kNestedBlocksize, kOffsetKey,
                        python_float(static_cast<double>(info.offset)));
  }
  text += '}';
  return text;
}

Weight4bitInfo parse_quant_state(std::string_view text, std::string_view where) {
  const QuantState state = parse_state(text, where);
  if (state.nested_dtype != DType::f32) {
    fail_input("{}: nested_dtype {} is known for weights read whole only", where, torch_name(state.nested_dtype));
  }
  return state.info;
}

}  // namespace qshard
