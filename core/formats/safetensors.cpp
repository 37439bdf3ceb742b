#include "core/formats/safetensors.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>

#include <fmt/ranges.h>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/json.h"

namespace qshard {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";
constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kMaximumHeader = 100'000'000;  // the library's own limit

struct FileDType {
  std::string_view name;
  std::int64_t bits;
};

// Every dtype of the format, in the library's order; files are written in descending order of it.
constexpr std::array<FileDType, 22> kFileDTypes{
    {{"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
     {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
     {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
     {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}}};

constexpr std::array<DType, 6> kReadable{DType::u8, DType::i32, DType::i64, DType::f16, DType::bf16, DType::f32};

std::ptrdiff_t dtype_rank(std::string_view name) {
  return std::find_if(kFileDTypes.begin(), kFileDTypes.end(), [&](const FileDType& d) { return d.name == name; }) -
         kFileDTypes.begin();
}

std::optional<std::int64_t> bytes_of(const Shape& shape, std::int64_t bits_per_element) {
  std::int64_t bits = bits_per_element;
  for (const std::int64_t size : shape) {
    if (__builtin_mul_overflow(bits, size, &bits)) return std::nullopt;
  }
  return bits % 8 == 0 ? std::optional(bits / 8) : std::nullopt;
}

std::size_t header_length(std::span<const std::byte> file, std::string_view where) {
  if (file.size() < kLengthBytes) {
    fail_input("{}: {} bytes are too few for a safetensors file; it is empty or cut off", where, file.size());
  }
  std::uint64_t length = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;) length = length << 8 | std::to_integer<std::uint64_t>(file[i]);
  if (length <= file.size() - kLengthBytes && length > kMaximumHeader) {
    fail_input("{}: the header takes {} bytes, more than the format's {}; split the tensors over several files", where,
               length, kMaximumHeader);
  }
  if (length > file.size() - kLengthBytes) {
    fail_input("{}: the header should take {} bytes, but {} follow; the file is cut off or not a safetensors file",
               where, length, file.size() - kLengthBytes);
  }
  return length;
}

SafetensorsHeader::Entry read_entry(const JsonObject& fields, const std::string& where, std::size_t data_begin,
                                    std::size_t data_size) {
  fields.allow_only({"dtype", "shape", "data_offsets"});
  SafetensorsHeader::Entry entry;
  entry.dtype = fields.string("dtype");
  entry.shape = fields.integers("shape");
  const auto rank = static_cast<std::size_t>(dtype_rank(entry.dtype));
  if (rank == kFileDTypes.size()) fail_input("{}: unknown dtype \"{}\"", where, entry.dtype);
  if (std::any_of(entry.shape.begin(), entry.shape.end(), [](std::int64_t size) { return size < 0; })) {
    fail_input("{}: shape {} has a negative size", where, to_string(entry.shape));
  }
  const std::vector<std::int64_t> offsets = fields.integers("data_offsets");
  if (offsets.size() != 2 || offsets[0] < 0 || offsets[1] < offsets[0]) {
    fail_input("{}: data_offsets {} must be a begin and an end that is not before it", where, to_string(offsets));
  }
  if (static_cast<std::uint64_t>(offsets[1]) > data_size) {
    fail_input("{}: data_offsets {} reach past the {} bytes of data; the file is cut off", where, to_string(offsets),
               data_size);
  }
  const std::optional<std::int64_t> bytes = bytes_of(entry.shape, kFileDTypes[rank].bits);
  if (bytes != offsets[1] - offsets[0]) {
    fail_input("{}: {} of shape {} does not take the {} bytes that data_offsets {} give it", where, entry.dtype,
               to_string(entry.shape), offsets[1] - offsets[0], to_string(offsets));
  }
  entry.begin = data_begin + static_cast<std::size_t>(offsets[0]);
  entry.end = data_begin + static_cast<std::size_t>(offsets[1]);
  return entry;
}

void read_metadata(const Json& value, std::string_view where, std::map<std::string, std::string>& metadata) {
  const JsonObject fields(value, fmt::format("{}: {}", where, kMetadataKey));
  for (const auto& item : value.items()) metadata[item.key()] = fields.string(item.key());
}

// Lists the names by place and checks that the tensors fill the data exactly.
void order_names(SafetensorsHeader& header, std::string_view where, std::size_t data_begin, std::size_t file_size) {
  std::vector<decltype(header.entries)::const_pointer> tensors;
  tensors.reserve(header.entries.size());
  for (const auto& tensor : header.entries) tensors.push_back(&tensor);
  std::ranges::stable_sort(tensors, {},
                           [](const auto* tensor) { return std::pair(tensor->second.begin, tensor->second.end); });
  header.names.reserve(tensors.size());
  std::size_t expected = data_begin;
  for (const auto* tensor : tensors) {
    const auto& [name, entry] = *tensor;
    if (entry.begin != expected) {
      fail_input("{}: tensor \"{}\" {} before it", where, name,
                 entry.begin < expected ? "overlaps the tensor" : "leaves a gap");
    }
    expected = entry.end;
    header.names.push_back(name);
  }
  if (expected != file_size) {
    fail_input("{}: {} bytes follow the last tensor{}", where, file_size - expected,
               header.names.empty() ? "" : fmt::format(" \"{}\"", header.names.back()));
  }
}

std::string json_string(std::string_view text, const std::filesystem::path& path) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    fail_input("{}: a name in it would not be valid UTF-8: \"{}\"", path.string(), text);
  }
}

std::string header_text(const std::filesystem::path& path,
                        const std::vector<std::pair<std::string, TensorView>>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::vector<std::string> items;
  items.reserve(tensors.size() + 1);
  std::vector<std::string> pairs;
  pairs.reserve(metadata.size());
  for (const auto& [key, value] : metadata) pairs.push_back(json_string(key, path) + ":" + json_string(value, path));
  if (!pairs.empty()) items.push_back(fmt::format("\"{}\":{{{}}}", kMetadataKey, fmt::join(pairs, ",")));
  std::size_t offset = 0;
  for (const auto& [name, view] : tensors) {
    const std::size_t end = offset + view.bytes.size();
    items.push_back(fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", json_string(name, path),
                                safetensors_name(view.dtype), fmt::join(view.shape, ","), offset, end));
    offset = end;
  }
  std::string text = fmt::format("{{{}}}", fmt::join(items, ","));
  text.append((kLengthBytes - text.size() % kLengthBytes) % kLengthBytes, ' ');
  if (text.size() > kMaximumHeader) {
    fail_input("{}: the header of {} tensors would take {} bytes, more than the format's {}; use several files",
               path.string(), tensors.size(), text.size(), kMaximumHeader);
  }
  return text;
}

void check_writable(const std::filesystem::path& path, const std::vector<std::pair<std::string, TensorView>>& tensors) {
  std::set<std::string_view> names;
  for (const auto& [name, view] : tensors) {
    if (name == kMetadataKey || !names.insert(name).second) {
      fail_input("{}: tensor name \"{}\" cannot be used{}", path.string(), name,
                 name == kMetadataKey ? ": it means the metadata" : " twice");
    }
    const auto bytes = static_cast<std::size_t>(element_count(view.shape)) * size_of(view.dtype);
    if (bytes != view.bytes.size()) {
      fail_input("{}: tensor \"{}\" of shape {} comes with {} bytes instead of {}", path.string(), name,
                 to_string(view.shape), view.bytes.size(), bytes);
    }
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, std::string_view where) {
  const std::size_t length = header_length(file, where);
  const std::size_t data_begin = kLengthBytes + length;
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  const Json json = parse_json(text, fmt::format("{}: header", where));
  if (!json.is_object()) fail_input("{}: the header is not a JSON object", where);

  SafetensorsHeader header;
  for (const auto& item : json.items()) {
    if (item.key() == kMetadataKey) {
      read_metadata(item.value(), where, header.metadata);
      continue;
    }
    const std::string tensor_where = fmt::format("{}: tensor \"{}\"", where, item.key());
    header.entries[item.key()] =
        read_entry(JsonObject(item.value(), tensor_where), tensor_where, data_begin, file.size() - data_begin);
  }
  order_names(header, where, data_begin, file.size());
  return header;
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  MappedFile file = MappedFile::open(path);
  SafetensorsHeader header = parse_safetensors_header(file.bytes(), path.string());
  return {path, std::move(file), std::move(header)};
}

TensorView SafetensorsFile::tensor(std::string_view name) const {
  const auto found = header_.entries.find(name);
  if (found == header_.entries.end()) fail_input("{}: tensor \"{}\" is missing", path_.string(), name);
  const SafetensorsHeader::Entry& entry = found->second;
  for (const DType dtype : kReadable) {
    if (safetensors_name(dtype) == entry.dtype) {
      return {dtype, entry.shape, file_.bytes().subspan(entry.begin, entry.end - entry.begin)};
    }
  }
  fail_input("{}: tensor \"{}\" has dtype {}, which is not supported here; known: U8, I32, I64, F16, BF16, F32",
             path_.string(), name, entry.dtype);
}

void write_safetensors(const std::filesystem::path& path, std::vector<std::pair<std::string, TensorView>> tensors,
                       const std::map<std::string, std::string>& metadata, Existing existing) {
  check_writable(path, tensors);
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    const std::ptrdiff_t a_rank = dtype_rank(safetensors_name(a.second.dtype));
    const std::ptrdiff_t b_rank = dtype_rank(safetensors_name(b.second.dtype));
    return a_rank != b_rank ? a_rank > b_rank : a.first < b.first;
  });
  const std::string header = header_text(path, tensors, metadata);
  std::array<std::byte, kLengthBytes> length{};
  for (std::size_t i = 0; i < kLengthBytes; ++i) length[i] = static_cast<std::byte>(header.size() >> (8 * i));

  AtomicFile file(path, existing);
  file.write(length);
  file.write(header);
  for (const auto& [name, view] : tensors) file.write(view.bytes);
  file.commit();
}

}  // namespace qshard
