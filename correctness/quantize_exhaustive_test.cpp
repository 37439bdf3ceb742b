// Every float32 in [-1, 1] against absmax 1: where codes change, compared with the list recorded on the GPU
// (golden/quant_cases.json, "thresholds").

#include <algorithm>
#include <atomic>
#include <bit>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "correctness/golden_cases.h"
#include "reference/parallel.h"
#include "reference/quantize.h"

namespace qshard::reference {
namespace {

#if defined(__SANITIZE_ADDRESS__) || !defined(__OPTIMIZE__)
constexpr std::int64_t kStride = 401;  // a slow build looks at every 401st chunk and at all that hold a change
#else
constexpr std::int64_t kStride = 1;
#endif

constexpr std::int64_t kBlocksize = 4096;
constexpr std::int64_t kValuesPerBlock = kBlocksize - 1;  // the first element of a block is the 1 that sets absmax
constexpr std::int64_t kValuesPerChunk = 16 * kValuesPerBlock;
constexpr std::int64_t kMagnitudes = 0x3F800000 + 1;  // bit patterns 0 to that of 1

struct Change {
  std::int64_t first_bits;  // the smallest magnitude (as bits) from which on the code is `code`
  int code;
};

// Changes of the code with growing magnitude, for one sign, the code of zero first.
std::vector<Change> recorded_changes(const std::string& type, int sign) {
  const Json golden = read_golden_cases();
  std::vector<Change> changes;
  for (const Json& threshold : golden.at("thresholds").at(type)) {
    if (threshold.at("sign").get<int>() != sign) continue;
    if (changes.empty()) changes.push_back({0, threshold.at("code_before").get<int>()});
    EXPECT_EQ(threshold.at("code_before").get<int>(), changes.back().code);
    changes.push_back(
        {std::stoll(threshold.at("first_bits").get<std::string>(), nullptr, 16), threshold.at("code_from").get<int>()});
  }
  return changes;
}

int expected_code(const std::vector<Change>& changes, std::int64_t magnitude) {
  int code = changes.front().code;
  for (const Change& change : changes) {
    if (magnitude >= change.first_bits) code = change.code;
  }
  return code;
}

bool holds_a_change(const std::vector<Change>& changes, std::int64_t first, std::int64_t end) {
  return std::ranges::any_of(
      changes, [&](const Change& change) { return first - 1 <= change.first_bits && change.first_bits <= end; });
}

// How many of the magnitudes [first, end) get another code than the recorded one.
std::int64_t wrong_codes(const std::vector<Change>& changes, QuantType type, int sign, std::int64_t first,
                         std::int64_t end) {
  std::vector<float> values;
  values.reserve(16 * kBlocksize);
  for (std::int64_t magnitude = first; magnitude < end; ++magnitude) {
    if (std::ssize(values) % kBlocksize == 0) values.push_back(1.0F);
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(magnitude) | (sign == 0 ? 0U : 0x80000000U)));
  }
  QuantizationOptions options;
  options.quant_type = type;
  options.blocksize = kBlocksize;
  const auto bytes = std::as_bytes(std::span(values));
  const Weight4bit weight = quantize({DType::f32, {std::ssize(values)}, bytes}, options, "values");
  // Within a chunk without a change all codes are those of its first magnitude.
  const bool constant = !holds_a_change(changes, first, end);
  const int code_of_first = expected_code(changes, first);
  std::int64_t wrong = 0;
  std::int64_t magnitude = first;
  for (std::int64_t i = 0; i < std::ssize(values); ++i) {
    const std::uint8_t byte = weight.codes[static_cast<std::size_t>(i / 2)];
    const int code = i % 2 == 0 ? byte >> 4 : byte & 15;
    if (i % kBlocksize == 0) {
      wrong += code == (type == QuantType::nf4 ? 15 : 3) ? 0 : 1;
      continue;
    }
    wrong += code == (constant ? code_of_first : expected_code(changes, magnitude)) ? 0 : 1;
    ++magnitude;
  }
  return wrong;
}

std::int64_t wrong_codes(QuantType type, int sign) {
  const std::vector<Change> changes = recorded_changes(std::string(to_string(type)), sign);
  std::atomic<std::int64_t> wrong{0};
  const std::int64_t chunks = (kMagnitudes + kValuesPerChunk - 1) / kValuesPerChunk;
  parallel_for(chunks, 1, [&](std::int64_t chunk, std::int64_t /*end*/) {
    const std::int64_t first = chunk * kValuesPerChunk;
    const std::int64_t end = std::min(kMagnitudes, first + kValuesPerChunk);
    if (chunk % kStride != 0 && !holds_a_change(changes, first, end)) return;
    wrong += wrong_codes(changes, type, sign, first, end);
  });
  return wrong;
}

TEST(QuantizeExhaustive, FifteenChangesEachAreRecorded) {
  for (const char* type : {"nf4", "fp4"}) {
    // The codes of +0 and -0 stand first in each list.
    EXPECT_EQ(recorded_changes(type, 0).size() - 1 + recorded_changes(type, 1).size() - 1, 15U) << type;
  }
}

TEST(QuantizeExhaustive, Nf4OfEveryPositiveFloat) {
  EXPECT_EQ(wrong_codes(QuantType::nf4, 0), 0);
}

TEST(QuantizeExhaustive, Nf4OfEveryNegativeFloat) {
  EXPECT_EQ(wrong_codes(QuantType::nf4, 1), 0);
}

TEST(QuantizeExhaustive, Fp4OfEveryPositiveFloat) {
  EXPECT_EQ(wrong_codes(QuantType::fp4, 0), 0);
}

TEST(QuantizeExhaustive, Fp4OfEveryNegativeFloat) {
  EXPECT_EQ(wrong_codes(QuantType::fp4, 1), 0);
}

}  // namespace
}  // namespace qshard::reference
