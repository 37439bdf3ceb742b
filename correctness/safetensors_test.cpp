#include "core/formats/safetensors.h"

#include <algorithm>
#include <random>

#include "core/base/atomic_file.h"
#include "correctness/expect_error.h"
#include "correctness/temporary_directory.h"

namespace qshard {
namespace {

constexpr const char* kGoldenFiles[] = {"llama/base/model",
                                        "llama/bnb4bit/model",
                                        "llama/adapter_final_fp32/adapter_model",
                                        "llama/adapter_final_bf16/adapter_model",
                                        "llama/trajectory",
                                        "quant_cases"};

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(QSHARD_GOLDEN_DIR) / (name + ".safetensors");
}

/// A file's bytes: the header's length, the header, and `data_size` bytes of data.
std::string file_of(std::string_view header, std::size_t data_size) {
  std::string bytes;
  for (std::size_t i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> (8 * i) & 0xFFU);
  return bytes + std::string(header) + std::string(data_size, 'd');
}

SafetensorsHeader parse(std::string_view bytes) {
  return parse_safetensors_header(std::as_bytes(std::span(bytes)), "f.safetensors");
}

void expect_refused(std::string_view header, std::size_t data_size, std::initializer_list<std::string_view> texts) {
  SCOPED_TRACE(header);
  expect_bad_input({"f.safetensors"}, [&] { parse(file_of(header, data_size)); });
  expect_bad_input(texts, [&] { parse(file_of(header, data_size)); });
}

TEST(Safetensors, ReadsEveryFieldOfAHandWrittenFile) {
  const TemporaryDirectory directory;
  write_file(directory / "a", file_of(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"U8","shape":[3],)"
                                      R"("data_offsets":[8,11]},"a":{"dtype":"BF16","shape":[2,2],"data_offsets":)"
                                      R"([0,8]},"s":{"dtype":"F64","shape":[],"data_offsets":[11,19]}})",
                                      19));
  const SafetensorsFile file = SafetensorsFile::open(directory / "a");
  EXPECT_EQ(file.names(), (std::vector<std::string>{"a", "b", "s"}));
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_TRUE(file.contains("b"));
  EXPECT_FALSE(file.contains("c"));
  const TensorView view = file.tensor("a");
  EXPECT_EQ(view.dtype, DType::bf16);
  EXPECT_EQ(view.shape, (Shape{2, 2}));
  EXPECT_EQ(view.bytes.size(), 8U);
  EXPECT_EQ(file.tensor("b").bytes.data(), view.bytes.data() + 8);
  expect_bad_input({(directory / "a").string(), "\"c\"", "missing"}, [&] { (void)file.tensor("c"); });
  expect_bad_input({(directory / "a").string(), "\"s\"", "F64"}, [&] { (void)file.tensor("s"); });
}

TEST(Safetensors, EmptyTensorsAndEmptyFilesAreValid) {
  EXPECT_TRUE(parse(file_of("{}", 0)).names.empty());
  const SafetensorsHeader header = parse(file_of(R"({"z":{"dtype":"F32","shape":[0,5],"data_offsets":[4,4]},)"
                                                 R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                                                 4));
  EXPECT_EQ(header.names, (std::vector<std::string>{"a", "z"}));
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const std::string whole = file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                    R"("b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}  )",
                                    11);
  EXPECT_NO_THROW(parse(whole));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    SCOPED_TRACE(size);
    expect_bad_input({"f.safetensors"}, [&] { parse(std::string_view(whole).substr(0, size)); });
  }
  expect_bad_input({"f.safetensors", "\"b\"", "1 bytes follow"}, [&] { parse(whole + "x"); });
}

TEST(Safetensors, AGoldenFileTruncatedAtEveryByteOfItsHeaderIsRefused) {
  const std::string whole = read_file(golden("llama/base/model"));
  const std::size_t data_begin = 8 + 2224;
  for (std::size_t size = 0; size <= data_begin; ++size) {
    SCOPED_TRACE(size);
    expect_bad_input({"f.safetensors"}, [&] { parse(std::string_view(whole).substr(0, size)); });
  }
}

TEST(Safetensors, EveryByteOfTheHeaderReplacedIsReadOrRefused) {
  const std::string whole = file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  int refused = 0;
  for (std::size_t place = 0; place + 8 < whole.size(); ++place) {
    for (int value = 0; value < 256; ++value) {
      std::string changed = whole;
      changed[place] = static_cast<char>(value);
      try {
        parse(changed);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_input);
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 10000);
}

TEST(Safetensors, AHugeHeaderLengthIsRefusedWithoutReadingIt) {
  for (const std::uint64_t length : {std::uint64_t{3}, std::uint64_t{100'000'001}, std::uint64_t{1} << 63,
                                     ~std::uint64_t{0}, ~std::uint64_t{0} - 7}) {
    std::string bytes;
    for (std::size_t i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xFFU);
    expect_bad_input({"f.safetensors", std::to_string(length)}, [&] { parse(bytes + "{}"); });
  }
}

// What is written can be read: 1,000 names of 100,000 bytes are more than the format takes.
TEST(Safetensors, AHeaderBeyondTheFormatsLimitIsNeitherWrittenNorRead) {
  const TemporaryDirectory directory;
  const Tensor empty(DType::u8, {0});
  std::vector<std::pair<std::string, TensorView>> tensors;
  for (int i = 0; i < 1000; ++i) {
    tensors.emplace_back(std::to_string(i) + std::string(100'000, 'n'), empty.view());
  }
  expect_bad_input({"beyond", "1000 tensors", "100000000"}, [&] { write_safetensors(directory / "beyond", tensors); });
  EXPECT_FALSE(std::filesystem::exists(directory / "beyond"));

  std::string file(8 + 100'000'001, ' ');
  for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(std::uint64_t{100'000'001} >> (8 * i) & 0xFFU);
  expect_bad_input({"f.safetensors", "100000001", "format's 100000000"}, [&] { parse(file); });
}

TEST(Safetensors, HeadersThatAreNotObjectsOfTensorsAreRefused) {
  expect_refused("[]", 0, {"not a JSON object"});
  expect_refused("{", 0, {"not valid JSON"});
  expect_refused(R"({"a":1})", 0, {"\"a\"", "object"});
  expect_refused(R"({"__metadata__":{"k":1}})", 0, {"__metadata__: k", "string"});
  expect_refused(R"({"__metadata__":[]})", 0, {"__metadata__", "object"});
  const std::string one = R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  expect_refused("{" + one + "," + one + "}", 1, {"\"a\"", "twice"});
}

TEST(Safetensors, TensorsWithWrongFieldsAreRefusedByName) {
  const auto refused = [](const std::string& fields, std::string_view text) {
    expect_refused("{\"w\":{" + fields + "}}", 8, {"tensor \"w\"", text});
  };
  refused(R"("shape":[2],"data_offsets":[0,8])", "dtype: missing");
  refused(R"("dtype":"F32","data_offsets":[0,8])", "shape: missing");
  refused(R"("dtype":"F32","shape":[2])", "data_offsets: missing");
  refused(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1)", "x: unknown");
  refused(R"("dtype":"F33","shape":[2],"data_offsets":[0,8])", "unknown dtype \"F33\"");
  refused(R"("dtype":4,"shape":[2],"data_offsets":[0,8])", "dtype: must be a string");
  refused(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])", "shape: must be a list of integers");
  refused(R"("dtype":"F32","shape":2,"data_offsets":[0,8])", "shape: must be a list of integers");
  refused(R"("dtype":"F32","shape":[18446744073709551618],"data_offsets":[0,8])", "shape: must be a list of integers");
  refused(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])", "negative");
  refused(R"("dtype":"F32","shape":[-2,-1],"data_offsets":[0,8])", "negative");
  refused(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])", "does not take the 8 bytes");
  refused(R"("dtype":"F16","shape":[2],"data_offsets":[0,8])", "does not take the 8 bytes");
  refused(R"("dtype":"F32","shape":[4611686018427387905,4],"data_offsets":[0,8])", "does not take the 8 bytes");
  refused(R"("dtype":"F4","shape":[17],"data_offsets":[0,8])", "does not take the 8 bytes");
  refused(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])", "end that is not before");
  refused(R"("dtype":"F32","shape":[2],"data_offsets":[-1,7])", "end that is not before");
  refused(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])", "end that is not before");
  refused(R"("dtype":"F32","shape":[2],"data_offsets":[1,9])", "past the 8 bytes");
  refused(R"("dtype":"F32","shape":[2],"data_offsets":[9223372036854775799,9223372036854775807])", "past the 8 bytes");
}

TEST(Safetensors, OverlapsGapsAndRestsAreRefused) {
  const auto two = [](std::string_view a, std::string_view b) {
    return fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":{}}},)"
                       R"("b":{{"dtype":"U8","shape":[4],"data_offsets":{}}}}})",
                       a, b);
  };
  EXPECT_NO_THROW(parse(file_of(two("[4,8]", "[0,4]"), 8)));
  expect_refused(two("[0,4]", "[0,4]"), 4, {"\"b\"", "overlaps"});
  expect_refused(two("[0,4]", "[3,7]"), 7, {"\"b\"", "overlaps"});
  expect_refused(two("[0,4]", "[5,9]"), 9, {"\"b\"", "gap"});
  expect_refused(two("[1,5]", "[5,9]"), 9, {"\"a\"", "gap"});
  expect_refused(two("[0,4]", "[4,8]"), 10, {"\"b\"", "2 bytes follow"});
}

TEST(Safetensors, GoldenFilesWrittenBackAreTheSameBytes) {
  const TemporaryDirectory directory;
  for (const std::string name : kGoldenFiles) {
    SCOPED_TRACE(name);
    const SafetensorsFile file = SafetensorsFile::open(golden(name));
    std::vector<std::pair<std::string, TensorView>> tensors;
    for (const std::string& tensor : file.names()) tensors.emplace_back(tensor, file.tensor(tensor));
    std::shuffle(tensors.begin(), tensors.end(), std::mt19937(7));
    write_safetensors(directory / "copy", tensors, file.metadata());
    EXPECT_TRUE(read_file(directory / "copy") == read_file(golden(name)));
  }
}

TEST(Safetensors, NamesWithAnyCharacterComeBack) {
  const TemporaryDirectory directory;
  const Tensor tensor(DType::f32, {2, 0, 3});
  const std::vector<std::string> names{"\"quoted\\\"", "\n\t\x01", "é€😀", ""};
  std::vector<std::pair<std::string, TensorView>> tensors;
  tensors.reserve(names.size());
  for (const std::string& name : names) tensors.emplace_back(name, tensor.view());
  write_safetensors(directory / "a", tensors, {{"k\"", "v\n"}});
  const SafetensorsFile file = SafetensorsFile::open(directory / "a");
  for (const std::string& name : names) EXPECT_EQ(file.tensor(name).shape, tensor.shape());
  EXPECT_EQ(file.metadata().at("k\""), "v\n");
}

TEST(Safetensors, TensorsThatCannotBeWrittenAreRefusedAndTheOldFileStays) {
  const TemporaryDirectory directory;
  write_file(directory / "a", "old");
  const Tensor tensor(DType::u8, {4});
  const Tensor other(DType::f32, {1});
  TensorView short_view = tensor.view();
  short_view.bytes = short_view.bytes.first(3);
  const auto write = [&](std::vector<std::pair<std::string, TensorView>> tensors) {
    write_safetensors(directory / "a", std::move(tensors));
  };
  expect_bad_input({"\"w\"", "twice"}, [&] {
    write({{"w", tensor.view()}, {"x", other.view()}, {"w", other.view()}});
  });
  expect_bad_input({"__metadata__"}, [&] { write({{"__metadata__", tensor.view()}}); });
  expect_bad_input({"\"w\"", "3 bytes instead of 4"}, [&] { write({{"w", short_view}}); });
  expect_bad_input({"a: ", "UTF-8"}, [&] { write({{"\xFF", tensor.view()}}); });
  EXPECT_EQ(read_file(directory / "a"), "old");
}

}  // namespace
}  // namespace qshard
