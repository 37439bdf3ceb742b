#include "reference/pack.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "correctness/expect_error.h"
#include "correctness/random_weights.h"
#include "reference/dequantize.h"
#include "reference/quantize.h"

namespace qshard::reference {
namespace {

constexpr DType kStorages[] = {DType::u8, DType::f16, DType::bf16, DType::f32};

Weight4bit random_weight(DType storage, bool double_quant) {
  std::mt19937_64 generator(31);
  const std::vector<float> values = test::random_values(test::Fill::normal, 40'000, generator);
  QuantizeOptions options;
  options.storage = storage;
  options.double_quant = double_quant;
  return quantize(from_floats(values, DType::bf16, {200, 200}).view(), options, "weight");
}

// What a checkpoint would hold: copies of the parts, at odd addresses like those of a mapped file.
struct Stored {
  explicit Stored(const Weight4bit& weight)
      : packed(shifted(std::as_bytes(std::span(weight.codes)))),
        absmax(shifted(weight.info.nested ? std::as_bytes(std::span(weight.absmax_codes))
                                          : std::as_bytes(std::span(weight.absmax)))),
        nested_absmax(shifted(std::as_bytes(std::span(weight.nested_absmax)))) {
    tensors.packed = storage_view(weight.view(), "weight");
    tensors.packed.bytes = std::span(packed).subspan(1);
    const std::int64_t blocks = block_count(element_count(weight.info.shape), weight.info.blocksize);
    tensors.absmax = {weight.info.nested ? DType::u8 : DType::f32, {blocks}, std::span(absmax).subspan(1)};
    if (!weight.info.nested) return;
    tensors.nested_absmax = {DType::f32, {std::ssize(weight.nested_absmax)}, std::span(nested_absmax).subspan(1)};
  }

  static std::vector<std::byte> shifted(std::span<const std::byte> bytes) {
    std::vector<std::byte> copy(1 + bytes.size());
    std::ranges::copy(bytes, copy.begin() + 1);
    return copy;
  }

  std::vector<std::byte> packed;
  std::vector<std::byte> absmax;
  std::vector<std::byte> nested_absmax;
  StoredWeight4bit tensors;
};

// All 65,536 patterns of two bytes: as bfloat16 and float16 there are NaN of every payload among them.
TEST(Pack, EverySixteenBitPatternSurvivesEveryStorage) {
  Weight4bit weight;
  weight.info.shape = {65536, 4};
  weight.info.blocksize = 4096;
  weight.absmax.assign(64, 1.0F);
  weight.codes.resize(2 * 65536);
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto pattern = static_cast<std::uint16_t>(i);
    std::memcpy(&weight.codes[std::size_t{2} * i], &pattern, 2);
  }
  for (const DType storage : kStorages) {
    weight.info.storage = storage;
    const Stored stored(weight);
    const Tensor moved(stored.tensors.packed);  // through a tensor of the storage dtype
    StoredWeight4bit tensors = stored.tensors;
    tensors.packed = moved.view();
    Weight4bitInfo info = weight.info;
    info.storage = DType::u8;
    const Weight4bit rebuilt = rebuild(info, tensors, "weight");
    EXPECT_EQ(rebuilt.codes, weight.codes) << torch_name(storage);
    EXPECT_EQ(rebuilt.info.storage, storage);
  }
}

TEST(Pack, StorageViewsAreTheSameMemory) {
  const std::int64_t bytes = 20'000;
  for (const DType storage : kStorages) {
    const Weight4bit weight = random_weight(storage, false);
    const TensorView view = storage_view(weight.view(), "weight");
    EXPECT_EQ(view.dtype, storage);
    EXPECT_EQ(view.shape, (Shape{bytes / static_cast<std::int64_t>(size_of(storage)), 1}));
    EXPECT_EQ(packed_bytes_of(view).data(), weight.codes.data());
    EXPECT_EQ(packed_bytes_of(view).size(), weight.codes.size());
  }
}

TEST(Pack, RebuiltWeightsAreTheSameBitForBit) {
  for (const DType storage : kStorages) {
    for (const bool nested : {false, true}) {
      const Weight4bit weight = random_weight(storage, nested);
      const Stored stored(weight);
      const Weight4bit rebuilt = rebuild(weight.info, stored.tensors, "weight");
      EXPECT_EQ(rebuilt.codes, weight.codes);
      EXPECT_EQ(rebuilt.absmax, weight.absmax);
      EXPECT_EQ(rebuilt.absmax_codes, weight.absmax_codes);
      EXPECT_EQ(rebuilt.nested_absmax, weight.nested_absmax);
      EXPECT_TRUE(std::ranges::equal(dequantize(rebuilt.view(), DType::bf16).bytes(),
                                     dequantize(weight.view(), DType::bf16).bytes()));
    }
  }
}

TEST(Pack, ASizeThatTheStorageCannotHoldIsBadInput) {
  Weight4bit weight;
  for (const std::int64_t elements : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16}) {
    weight.info.shape = {elements};
    weight.codes.resize(static_cast<std::size_t>(packed_bytes(elements)));
    for (const DType storage : kStorages) {
      weight.info.storage = storage;
      const auto itemsize = static_cast<std::int64_t>(size_of(storage));
      if (packed_bytes(elements) % itemsize == 0) {
        EXPECT_EQ(storage_view(weight.view(), "layer.weight").shape[0] * itemsize, packed_bytes(elements));
      } else {
        expect_bad_input({"layer.weight", torch_name(storage)}, [&] { storage_view(weight.view(), "layer.weight"); });
      }
    }
  }
}

TEST(Pack, InconsistentPartsAreBadInput) {
  const Weight4bit flat_weight = random_weight(DType::bf16, false);
  const Weight4bit nested_weight = random_weight(DType::bf16, true);
  const Stored flat_memory(flat_weight);
  const Stored nested_memory(nested_weight);
  const StoredWeight4bit& flat = flat_memory.tensors;
  const StoredWeight4bit& nested = nested_memory.tensors;
  const auto expect_bad = [](Weight4bitInfo info, StoredWeight4bit stored, const std::string& part_of_message,
                             const std::function<void(Weight4bitInfo&, StoredWeight4bit&)>& change) {
    change(info, stored);
    expect_bad_input({"layer.weight", part_of_message}, [&] { rebuild(info, stored, "layer.weight"); });
  };
  const Weight4bitInfo& info = flat_weight.info;
  expect_bad(info, flat, "block size 48", [](auto& i, auto&) { i.blocksize = 48; });
  expect_bad(info, flat, "absmax has 625", [](auto& i, auto&) { i.blocksize = 128; });
  expect_bad(info, flat, "packed data", [](auto& i, auto&) { i.shape = {200, 201}; });
  expect_bad(info, flat, "empty shape", [](auto& i, auto&) { i.shape = {200, 0}; });
  expect_bad(info, flat, "int32", [](auto& i, auto&) { i.dtype = DType::i32; });
  expect_bad(info, flat, "int64", [](auto&, auto& s) { s.packed.dtype = DType::i64; });
  expect_bad(info, flat, "uint8", [](auto&, auto& s) { s.absmax.dtype = DType::u8; });
  expect_bad(info, flat, "do not hold", [](auto&, auto& s) { s.absmax.bytes = s.absmax.bytes.first(9); });
  expect_bad(info, flat, "not nested", [&](auto&, auto& s) { s.nested_absmax = nested.nested_absmax; });
  expect_bad(nested_weight.info, nested, "missing", [](auto&, auto& s) { s.nested_absmax.reset(); });
  expect_bad(nested_weight.info, nested, "must be uint8", [](auto&, auto& s) { s.absmax.dtype = DType::f32; });
  expect_bad(nested_weight.info, nested, "must be float32", [](auto&, auto& s) { s.nested_absmax->dtype = DType::u8; });
  expect_bad(nested_weight.info, nested, "nested_absmax has 2", [](auto&, auto& s) {
    s.nested_absmax->shape = {2};
    s.nested_absmax->bytes = s.nested_absmax->bytes.first(8);
  });
}

}  // namespace
}  // namespace qshard::reference
